"""Denoisers: diffusion language models that fill holes of a prompt under traces.

Import the adapter that is wanted (`checkpoint`, `scripted`); this file loads nothing, so that the
room stays light. Token ids never leave it. Knows nothing of scores, targets and search.
"""
