"""Whether the compiled model equals the original: bounds, per output, per module, in lower precision."""
