"""What travels inside model.tar.gz: the manifest and its reader, the handler, the tasks and the servers.

Importing this package imports nothing else: the manifest must be readable without torch, numpy or Pillow.
"""
