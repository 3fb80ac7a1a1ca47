"""Models in MLflow's registry: what is registered of a folder, and how it predicts there."""
