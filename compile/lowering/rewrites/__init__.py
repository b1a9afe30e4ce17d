"""One rewrite a file; ``registry.py`` lists them."""
