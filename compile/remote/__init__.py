"""Compiling elsewhere: the bundle that travels, the jobs that run there, and what comes back."""
