"""Watchers of growing outputs (see `flipfast.watchers.base`); one module per purpose."""
