"""Comparing runs, sweeps, checkpoints and objectives: `pmlm compare`."""
