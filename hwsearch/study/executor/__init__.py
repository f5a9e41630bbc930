"""Executors: where jobs are run."""
