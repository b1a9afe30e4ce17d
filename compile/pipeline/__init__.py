"""The way of a build: plan, compile the variants, assemble, lock."""
