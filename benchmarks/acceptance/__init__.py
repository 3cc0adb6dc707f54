"""A world of simulated candidates, measured on real ones, for the benchmark of acceptance rules."""
