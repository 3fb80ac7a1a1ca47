"""Scores by well-kept libraries and published rules, in percent, and the baselines that they are held against.

Large libraries are imported inside the functions; importing this package costs nothing.
"""
