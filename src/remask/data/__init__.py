"""Read files into rows and traces, cleaned and redacted.

Formats are recognised by the content of a file, not by its name. All text that is read here is
untrusted.
"""
