"""The run directory and what is derived from it: store, budget, meter, result, report."""
