"""The native server: `python -m inference_code.server`."""
