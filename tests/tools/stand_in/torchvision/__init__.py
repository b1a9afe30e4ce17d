"""Stands in for torchvision, of which timm's networks use one class and name a few more: no transform works."""
