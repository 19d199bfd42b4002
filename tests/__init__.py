"""Makes this folder the `tests` that processes import, before one that a package installs."""
