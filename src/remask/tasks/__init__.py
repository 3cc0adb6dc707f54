"""Score a prompt on the rows of a task: labelled data, metrics, promptfoo tests, Inspect tasks."""
