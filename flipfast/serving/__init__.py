"""One engine for many callers: in this process, over HTTP, or across several processes."""
