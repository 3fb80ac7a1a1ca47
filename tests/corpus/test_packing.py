import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import packing as oracle
from scipy.stats import chisquare

from pmlm_core.corpus.packing import Packer, Windows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import ConfigError, DataError

IDS = SpecialIds()
# Ids 3 ([UNK]) occur in real text; a window of nothing else must be left out.
DOCUMENTS = st.lists(st.lists(st.sampled_from([3, 3, 10, 11, 12, 13]), max_size=30), max_size=12)


def pack(
    documents: list[list[int]], share: bool, drain_after: set[int], max_length: int = 10
) -> tuple[Packer, Windows]:
    packer = Packer(max_length, IDS, share, stream_key=7)
    parts = []
    for i, document in enumerate(documents):
        packer.add(np.array(document, np.int64))
        if i in drain_after:
            parts.append(packer.drain())
    parts.append(packer.flush())
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return packer, Windows(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.segment_starts for part in parts]),
    )


def text_of(windows: Windows, r: int) -> list[int]:
    """Text tokens of a window, its frame checked and taken off."""
    row, split = windows.row(r).tolist(), int(windows.segment_starts[r])
    assert row[0] == IDS.sos
    assert row[split - 1] == IDS.eos
    assert row[-1] == IDS.eos
    return row[1 : split - 1] + row[split:-1]


@settings(deadline=None)
@given(DOCUMENTS, st.booleans())
def test_text_is_that_of_the_oracle(documents: list[list[int]], share: bool) -> None:
    packer, windows = pack(documents, share, set())
    texts = [text_of(windows, r) for r in range(len(windows))]
    assert texts == oracle.texts(documents, 7, share)
    if not share:
        assert sum(map(len, texts)) + packer.dropped_tokens == sum(map(len, documents))


@settings(deadline=None)
@given(DOCUMENTS, st.booleans(), st.sets(st.integers(0, 11)))
def test_windows_do_not_depend_on_when_they_are_drained(
    documents: list[list[int]], share: bool, drain_after: set[int]
) -> None:
    _, whole = pack(documents, share, set())
    _, parts = pack(documents, share, drain_after)
    assert whole.input_ids.tolist() == parts.input_ids.tolist()
    assert whole.offsets.tolist() == parts.offsets.tolist()
    assert whole.segment_starts.tolist() == parts.segment_starts.tolist()


def test_only_the_last_window_of_a_shared_stream_is_short() -> None:
    rng = np.random.default_rng(0)
    _, windows = pack([rng.integers(6, 99, n).tolist() for n in rng.integers(1, 40, 50)], True, {3, 20}, max_length=32)
    lengths = np.diff(windows.offsets)
    assert set(lengths[:-1]) == {32}
    assert 4 <= lengths[-1] <= 32


def test_both_segments_hold_text_where_there_are_two_tokens_and_one_token_is_s1() -> None:
    _, windows = pack([[10, 11], [12]], False, set())
    assert [windows.row(r).tolist() for r in range(2)] == [[0, 10, 2, 11, 2], [0, 12, 2, 2]]
    assert windows.segment_starts.tolist() == [3, 3]


def test_split_is_uniform() -> None:
    packer = Packer(13, IDS, True, stream_key=3)
    packer.add(np.full(10 * 20_000, 9))
    starts = packer.flush().segment_starts
    counts = np.bincount(starts - 2, minlength=10)
    assert counts[0] == 0
    assert len(counts) == 10  # S1 holds 1..9 of 10 tokens
    assert chisquare(counts[1:]).pvalue > 1e-3


def test_split_is_a_function_of_key_and_row() -> None:
    def splits(stream_key: int) -> list[int]:
        packer = Packer(64, IDS, True, stream_key)
        packer.add(np.full(61 * 50, 9))
        return packer.flush().segment_starts.tolist()

    assert splits(1) == splits(1)
    assert splits(1) != splits(2)


def test_text_that_cannot_be_masked_is_dropped_and_counted() -> None:
    packer, windows = pack([[3] * 5, [], [3, 4], [9]], False, set())
    assert [windows.row(r).tolist() for r in range(len(windows))] == [[0, 9, 2, 2]]
    assert (packer.rows, packer.dropped_tokens) == (1, 7)


@pytest.mark.parametrize("max_length", [4, 65_536])
def test_max_length_out_of_range_is_refused(max_length: int) -> None:
    with pytest.raises(ConfigError, match="max_length"):
        Packer(max_length, IDS, True, 0)


def test_a_matrix_is_no_document() -> None:
    with pytest.raises(DataError, match="1-D"):
        Packer(16, IDS, True, 0).add(np.zeros((2, 2), np.int32))


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 40), st.integers(1, 200))
def test_every_length_of_stream_comes_back(max_length: int, tokens: int) -> None:
    _, windows = pack([list(range(6, 6 + tokens))], True, {0}, max_length)
    assert [t for r in range(len(windows)) for t in text_of(windows, r)] == list(range(6, 6 + tokens))
