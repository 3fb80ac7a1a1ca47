"""`pmlm doctor`: whether a machine or a cluster is fit for a long run, before it starts."""
