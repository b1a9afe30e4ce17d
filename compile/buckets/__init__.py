"""Which buckets? From a histogram of the sizes that an endpoint gets to the bucket set that wastes least.

sizes.py reads the histogram, cost.py says what an item of a size costs, one_dimension.py (exact) and two_dimensions.py
(greedy, with a bound) choose, memory.py says how many buckets fit, planning.py puts them together, plot.py draws.
"""

from __future__ import annotations
