"""Child processes that end with the server."""
