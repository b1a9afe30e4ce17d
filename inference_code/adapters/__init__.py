"""The same artifact under the servers of others: TorchServe and Triton."""
