"""The composition root: the only room that imports rooms, and where everything is built once.

`job.py` builds what a run needs, `optimize.py` plays a run, `refine.py` and `evaluate.py` are the
other two things that a user asks for.
"""
