"""Our own networks, where no well-kept library has them in both environments.

Each is plain PyTorch written from its paper. Parameter names are those of the checkpoints that people have; the file's
docstring says whose.
"""
