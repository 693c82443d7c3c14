"""The model registry in MLflow: versions, their evaluations, and the gate that compares them."""
