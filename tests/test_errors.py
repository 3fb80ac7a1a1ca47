"""Guesses of what was meant."""

import pytest

from pmlm_core.errors import near


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("learning_rat", ["learning_rate", "seed"], "; did you mean 'learning_rate'?"),
        ("ae+parr", ["AE", "AE+PAR"], "; did you mean 'AE+PAR'?"),
        ("RTE", ["rte", "mrpc"], "; did you mean 'rte'?"),
        (7, ["rte"], ""),
        ("zzz", ["seed"], ""),
        ("zzz", [], ""),
    ],
)
def test_what_was_probably_meant(name, known, said):
    assert near(name, known) == said
