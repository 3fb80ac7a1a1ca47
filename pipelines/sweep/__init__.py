"""`pmlm sweep`: many fine-tuning runs per benchmark with Ray Tune; the best are trained again and registered."""
