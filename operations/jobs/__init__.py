"""Compile jobs in an account: bundle, upload, start, follow, bring the result home."""
