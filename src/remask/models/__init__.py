"""Frozen language models that implement TargetModel, one file per kind.

Each module asks one kind of model and reports its failures. Prompts, scores and the search are
outside of this package. Import the module that you need: this file imports nothing, so that torch
and the openai SDK load only where they are used.
"""
