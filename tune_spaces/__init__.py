"""Benchmarks: one small file each, with what is searched, by which figure, the paper's grid and the published results.

A file put here that defines `BENCHMARK` is a benchmark; `template.py` is to be copied for data of one's own, and the
copy may lie anywhere. `registry` finds them, `checks` says what is wrong with one, `settle` joins a space or a grid
with what the user wrote. Importing a benchmark is cheap: `ray.tune` is imported when its space is made.
"""
