"""Frozen models behind the port Target, one file per kind.

Each module knows how to ask one kind of model and how its failures look. None knows what a prompt
means, what a score is, or that a search exists. Import the file you need: this package imports
nothing, so that torch and the openai SDK load only where they are used.
"""
