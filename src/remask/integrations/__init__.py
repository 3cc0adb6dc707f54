"""remask inside other optimisers: gepa, DSPy, MLflow; remask itself imports none of them. `place`
changes one string inside a file of another tool."""
