"""`pmlm submit`: any command as a job of a Ray cluster, by Ray's job interface."""
