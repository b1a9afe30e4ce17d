"""The same artifact and handler under NVIDIA Triton.

`python -m inference_code.adapters.triton` makes a model repository.
"""
