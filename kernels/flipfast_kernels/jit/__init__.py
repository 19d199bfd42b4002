"""Device code, one module an operation; importing one needs triton."""
