"""`pmlm fill`: fill masks with a checkpoint."""
