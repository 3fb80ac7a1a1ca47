"""`pmlm plan`: hours, dollars and the bottleneck of a recipe on clusters nobody has to hold."""
