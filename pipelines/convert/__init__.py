"""`pmlm convert`: a published checkpoint becomes one of ours."""
