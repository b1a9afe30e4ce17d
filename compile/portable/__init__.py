"""The portable graph: what lowering made of a model, as a file of operators and tensors without code."""
