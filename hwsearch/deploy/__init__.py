"""From a searched network to a file that a runtime reads."""
