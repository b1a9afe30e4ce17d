"""Several processes on one port: the parent that accepts, and what its worker processes share."""
