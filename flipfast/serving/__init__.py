"""One engine for many callers: in this process, behind HTTP, over several processes."""
