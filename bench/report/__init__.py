"""From pytest-benchmark's JSON to stored runs, a page, and tables in Markdown files."""
