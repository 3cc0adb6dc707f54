"""Candidates to the better prompt: by a target's scores (halving) or by likelihood.

Both are generators of events over a State, so that a run that was cut is resumed by folding its
events and iterating again. Knows nothing of files, models or where candidates come from.
"""
