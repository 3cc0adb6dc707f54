"""Optimise the prompt of an Inspect task. Inspect is imported only where a task is run."""
