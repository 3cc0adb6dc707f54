"""The faces of a finished run that are read: words and figures, and one page of HTML.

`words` turns a state into what a reader is shown, `chart` places it on an axis, `html` renders the
page. All of it is derived from the run directory; nothing here changes a run.
"""
