"""Readers of the trace formats of other tools, one module per tool."""
