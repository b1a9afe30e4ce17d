"""Compile jobs in an account: bundle, upload, start, follow, fetch the result."""
