"""Files of other tools to traces: one file per foreign format, told by content, not by name.

`detect` says which reader a value gets, `stream` turns files into values, `read` joins the two,
`traces` makes the records that the other rooms understand. Everything read here is untrusted.
"""
