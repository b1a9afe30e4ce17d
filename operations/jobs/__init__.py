"""Compile jobs in an account: bundle, upload, start, follow, assemble and publish what they compiled."""
