"""Device code, one module per operation; importing a module needs triton."""
