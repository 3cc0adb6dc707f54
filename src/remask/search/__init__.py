"""Search for a better prompt: by the scores of a target or by likelihood.

Both searches are generators of events that depend only on their arguments. An interrupted run is
resumed by folding its stored events into a State and iterating again.
"""
