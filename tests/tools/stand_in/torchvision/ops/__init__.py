"""As torchvision.ops has it."""
