"""The routes of the server, one module a kind of caller."""
