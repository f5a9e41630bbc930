"""The run folder: the study of all trials, the files that are written, and the lock on it."""
