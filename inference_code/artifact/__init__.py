"""What model.tar.gz holds: its manifest, and how flat outputs become the model's own."""
