"""`pmlm sync`: send to MLflow what it missed."""
