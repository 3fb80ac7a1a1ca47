"""Fine-tuning for a benchmark or a task of one's own: `pmlm finetune`."""
