"""The public functions, and the only room that builds objects of all other rooms.

`job.py` builds everything that a run needs, each thing once. `optimize.py` runs it, `refine.py` and
`evaluate.py` are the other two public functions.
"""
