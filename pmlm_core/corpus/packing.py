"""Packing: a stream of tokenized documents becomes windows `[SOS] S1 [EOS] S2 [EOS]` (docs/method.md, 3)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.jit import njit
from pmlm_core.randomness import below, draw, key, mix64

FRAME = 3  # special tokens of every window: [SOS], the [EOS] after S1, the [EOS] after S2
LONGEST = 65_535  # positions are stored as uint16


@dataclass
class Windows:
    """R windows, laid end to end.

    Attributes:
        input_ids: int32, all tokens of all windows; window r is `input_ids[offsets[r]:offsets[r + 1]]`.
        offsets: int64 [R + 1].
        segment_starts: int32 [R], index within the window of the first token of S2 (segment 1 begins there).
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    segment_starts: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.segment_starts)

    def row(self, r: int) -> npt.NDArray[np.int32]:
        """Tokens of window r (a view, not a copy)."""
        return self.input_ids[self.offsets[r] : self.offsets[r + 1]]


class Packer:
    """Cuts documents into windows of `max_length` tokens.

    With `documents_share_windows`, documents are joined by one [EOS] into a stream that is cut every `max_length - 3`
    tokens; no [EOS] is spent where a window begins anyway, so only the last window of a stream is shorter. Without, a
    window never holds two documents, and the last window of each document may be shorter.

    S1 is the first 1..n-1 of a window's n text tokens, uniformly, decided by (`stream_key`, number of the window)
    alone. A window of one text token has an empty S2. A window with nothing to mask (special tokens only) is left out;
    its text tokens are counted in `dropped_tokens`.

    Args:
        max_length: tokens per window, specials included; 5..65535.
        special_ids: ids of the tokenizer that made the documents.
        documents_share_windows: see above.
        stream_key: unsigned 64-bit key of this stream (see `pmlm_core.randomness.key`).

    Raises:
        ConfigError: `max_length` out of range.

    >>> packer = Packer(8, SpecialIds(), documents_share_windows=True, stream_key=1)
    >>> packer.add(np.array([10, 11, 12])); packer.add(np.array([20, 21]))
    >>> windows = packer.flush()
    >>> windows.input_ids.tolist(), windows.segment_starts.tolist()
    ([0, 10, 2, 11, 12, 2, 20, 2, 0, 21, 2, 2], [3, 3])
    """

    def __init__(
        self, max_length: int, special_ids: SpecialIds, documents_share_windows: bool, stream_key: int
    ) -> None:
        if not FRAME + 2 <= max_length <= LONGEST:
            raise ConfigError(
                f"max_length is {max_length}; a window holds {FRAME} special tokens and at least 2 of text, and "
                f"positions are stored in 16 bits: choose {FRAME + 2}..{LONGEST}."
            )
        self.capacity = max_length - FRAME
        self.rows = 0
        self.dropped_tokens = 0
        self._share = documents_share_windows
        self._special_ids = special_ids
        self._is_special = np.array(sorted(set(special_ids.as_dict().values())), dtype=np.int32)
        self._separator = np.array([special_ids.eos], dtype=np.int32)
        self._split_key = np.uint64(key(stream_key, "segment split"))
        self._pending: list[npt.NDArray[np.int32]] = []
        self._pending_tokens = 0

    def add(self, token_ids: npt.NDArray[np.integer]) -> None:
        """Take one document (1-D integer ids, no specials around it). An empty one leaves no trace."""
        ids = np.asarray(token_ids, dtype=np.int32)
        if ids.ndim != 1:
            raise DataError(f"A document must be a 1-D array of token ids, not of shape {ids.shape}.")
        if not len(ids):
            return
        if self._share and self._pending_tokens % self.capacity:
            self._push(self._separator)
        self._push(ids)

    def drain(self) -> Windows:
        """Windows that are complete by now; the rest waits for more documents."""
        if not self._share:
            return self.flush()
        complete = self._pending_tokens // self.capacity
        if not complete:
            return self._lay_out(np.empty(0, np.int32), np.empty(0, np.int64))
        stream = np.concatenate(self._pending)
        cut = complete * self.capacity
        self._pending, self._pending_tokens = [], 0
        if cut < len(stream):
            self._push(stream[cut:].copy())  # a copy, or the rest would keep the whole stream in memory
        return self._lay_out(stream[:cut], np.full(complete, self.capacity, np.int64))

    def flush(self) -> Windows:
        """All that is left, the partial last window included. The next document begins a new window."""
        if not self._pending:
            return self._lay_out(np.empty(0, np.int32), np.empty(0, np.int64))
        stream = np.concatenate(self._pending)
        if self._share:
            lengths = _cut_lengths(np.array([len(stream)], np.int64), self.capacity)
        else:
            lengths = _cut_lengths(np.array([len(ids) for ids in self._pending], np.int64), self.capacity)
        self._pending, self._pending_tokens = [], 0
        return self._lay_out(stream, lengths)

    def _push(self, ids: npt.NDArray[np.int32]) -> None:
        self._pending.append(ids)
        self._pending_tokens += len(ids)

    def _lay_out(self, stream: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]) -> Windows:
        ids, offsets, starts, dropped = _lay_out_windows(
            stream, lengths, self._is_special, self._special_ids.sos, self._special_ids.eos, self._split_key, self.rows
        )
        self.rows += len(starts)
        self.dropped_tokens += int(dropped)
        return Windows(ids, offsets, starts)


def _cut_lengths(documents: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """Lengths of the pieces when each document is cut every `capacity` tokens.

    >>> _cut_lengths(np.array([5, 1, 4]), 2).tolist()
    [2, 2, 1, 1, 2, 2]
    """
    pieces = -(-documents // capacity)
    lengths = np.full(int(pieces.sum()), capacity, np.int64)
    lengths[np.cumsum(pieces) - 1] = documents - (pieces - 1) * capacity
    return lengths


@njit(nogil=True)
def _lay_out_windows(stream, lengths, special, sos, eos, split_key, first_row):  # type: ignore[no-untyped-def]
    ids = np.empty(len(stream) + FRAME * len(lengths), np.int32)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    segment_starts = np.empty(len(lengths), np.int32)
    rows, read, write, dropped = 0, 0, 0, 0
    for n in lengths:
        text = stream[read : read + n]
        read += n
        maskable = False
        for token in text:
            is_special = False
            for s in special:
                if token == s:
                    is_special = True
            if not is_special:
                maskable = True
                break  # almost always at the first token
        if not maskable:
            dropped += n
            continue
        split = np.int64(1)
        if n > 1:
            row_stream = mix64(split_key + np.uint64(first_row + rows))
            split = 1 + below(draw(row_stream, np.uint64(0)), n - 1)
        ids[write] = sos
        ids[write + 1 : write + 1 + split] = text[:split]
        ids[write + 1 + split] = eos
        ids[write + 2 + split : write + 2 + n] = text[split:]
        ids[write + 2 + n] = eos
        write += n + FRAME
        segment_starts[rows] = split + 2
        rows += 1
        offsets[rows] = write
    return ids[:write], offsets[: rows + 1], segment_starts[:rows], dropped
