"""One concept a file; every construct takes keyword-only, typed properties."""
