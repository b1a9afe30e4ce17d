"""From items to the device: the loaded graphs, batches, and the schedulers that form them."""
