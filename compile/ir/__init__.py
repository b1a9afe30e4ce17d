"""A traced graph as data: nodes, values, aliases, floating point operations."""
