"""Reports of a run as text, HTML and Markdown, derived from the run directory."""
