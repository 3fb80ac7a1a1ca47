"""Search spaces, one small file per benchmark. None is here yet: sweeps come with fine-tuning."""
