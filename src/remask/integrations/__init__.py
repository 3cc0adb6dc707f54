"""Use remask in other tools: gepa, DSPy, MLflow and promptfoo. remask itself needs none of them."""
