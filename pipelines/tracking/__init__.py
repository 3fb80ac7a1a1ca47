"""The only seam to MLflow: figures go to a journal on disk, and from there to the server when it can be reached."""
