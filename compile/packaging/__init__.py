"""model.tar.gz: written, read back, and tried with the code that it carries."""
