"""A run directory and everything that is derived from it: store, budget, meter, result, report.

Knows how values become durable and what was spent. Knows nothing of how a search decides.
"""
