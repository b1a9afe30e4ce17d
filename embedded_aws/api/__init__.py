"""One request to AWS: operations in place of moto's, a module or folder a service, each with its server's context."""
