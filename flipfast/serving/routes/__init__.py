"""The server's routes, one module per kind of caller."""
