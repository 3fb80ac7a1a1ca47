"""Benchmarks and people's own tasks: files -> examples -> features -> predictions -> scores."""
