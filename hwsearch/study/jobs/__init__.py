"""Jobs: pieces of work that may be done in another process."""
