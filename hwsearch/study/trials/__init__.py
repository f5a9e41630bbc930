"""One trial from knobs to its record, and who goes on to the next rung. Start with `trial`."""
