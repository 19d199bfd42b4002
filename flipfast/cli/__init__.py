"""The command line: `flipfast score`, `flipfast demo`, `flipfast info`."""

from flipfast.cli.main import main

__all__ = ["main"]
