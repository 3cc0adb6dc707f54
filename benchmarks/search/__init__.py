"""What all cells of the search benchmark share; only the optimiser varies."""
