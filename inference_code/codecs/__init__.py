"""Bytes to arrays and back: one format a file. Nothing here unpickles, and nothing allocates what a header claims."""
