"""Pre-training over Ray Train: `pmlm pretrain`."""
