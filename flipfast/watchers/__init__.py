"""Watchers of growing outputs (see `flipfast.watching`); one module a purpose."""
