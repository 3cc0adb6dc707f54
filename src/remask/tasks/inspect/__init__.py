"""A task of Inspect in place of rows and metric. Imports Inspect only where a task is run."""
