"""Batch prediction with a fine-tuned model: `pmlm predict`."""
