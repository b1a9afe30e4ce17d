"""The same artifact and handler under NVIDIA Triton: `python -m inference_code.triton` makes a model repository."""
