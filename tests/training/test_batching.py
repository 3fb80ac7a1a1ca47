"""Cutting a global batch: even, within the limit, and refusals that name values that work."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.errors import ConfigError
from pmlm_core.training.batching import divisors, micro_batch_size
from pmlm_core.training.loader import Share


@given(st.integers(1, 5000))
def test_divisors(n):
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


@given(st.integers(1, 512), st.integers(1, 8), st.integers(1, 64))
def test_auto_is_the_largest_that_fits(share, workers, limit):
    size = micro_batch_size(share * workers, workers, None, limit)
    assert share % size == 0
    assert size <= limit
    assert not any(share % bigger == 0 for bigger in range(size + 1, min(limit, share) + 1))


@given(st.integers(1, 300), st.integers(1, 8), st.one_of(st.none(), st.integers(1, 40)))
def test_every_value_a_refusal_names_works(batch, workers, asked):
    try:
        micro_batch_size(batch, workers, asked, limit=16)
    except ConfigError as error:
        named = re.findall(
            r"(num_workers|micro_batch_size|batch_size) may be ([\d, or]+)", str(error).replace("(", ",")
        )
        named += re.findall(r"or (batch_size) ([\d, or]+)", str(error))
        assert named
        for option, values in named:
            for value in map(int, re.findall(r"\d+", values)):
                changed = {"batch_size": batch, "num_workers": workers, "micro_batch_size": asked} | {option: value}
                if batch % workers == 0 or option != "micro_batch_size":
                    # The size of micro-batches is settled after the workers: it may still have to change.
                    kept = None if batch % workers else changed["micro_batch_size"]
                    micro_batch_size(changed["batch_size"], changed["num_workers"], kept, limit=16)


def test_refusal_names_all_three_options():
    with pytest.raises(ConfigError, match=r"batch_size 64 .* num_workers x micro_batch_size = 2 x 5"):
        micro_batch_size(64, 2, 5, limit=16)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_the_shares_of_all_workers_are_the_batch(workers, per_worker, size):
    batch = workers * per_worker * size
    taken = [index for rank in range(workers) for index in Share(rank, workers, batch, size).micro_batches()]
    assert sorted(taken) == list(range(batch // size))
