"""remask inside other optimisers: gepa, DSPy, MLflow. Nothing here is imported by remask itself."""
