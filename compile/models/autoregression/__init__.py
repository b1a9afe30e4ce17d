"""Decoding one token at a time with graphs of fixed shape.

An encoder graph also computes the keys and values of cross-attention, once. A step graph takes one token, a one-hot
slot that says which place it has, and a cache of keys and values with room for the longest text; it returns the logits
of the next place and the cache with the slot written. The loop, its early stop and the search are the host's.
"""
