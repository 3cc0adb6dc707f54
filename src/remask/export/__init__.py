"""Prompts for other tools. `formats` writes one file and reads it back, `promptfoo` writes a
comparison, `files` knows how a file appears. Nothing here evaluates a template or sends a byte."""
