"""Reading rows of one memory-mapped shard: compiled loops gather ragged rows out of the file seen as arrays.

Every offset is checked before it is followed, so a damaged file gives an error, not a crash.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pmlm_core.corpus.shards import BATCH_ROWS, COLUMNS_PER_VIEW
from pmlm_core.errors import DataError
from pmlm_core.jit import njit

REMAKE = "delete it and run `pmlm preprocess` again (it does only what is missing)"


@dataclass
class Rows:
    """B rows with one view each, as ragged arrays: row b owns the slice `offsets[b]:offsets[b + 1]`.

    Attributes:
        input_ids: int32 tokens, uncorrupted; sliced by `offsets`, int64 [B + 1].
        segment_starts: int32 [B], index of the first token of segment 1.
        positions: int32 masked positions in factorization order; sliced by `masked_offsets`, int64 [B + 1].
        replacement_ids: int32, what the corrupted input holds at `positions`; same slices.
        step_lengths: int32 positions of every step; sliced by `step_offsets`, int64 [B + 1].
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    segment_starts: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    masked_offsets: npt.NDArray[np.int64]
    replacement_ids: npt.NDArray[np.int32]
    step_lengths: npt.NDArray[np.int32]
    step_offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.segment_starts)

    def all_shown_as(self, token_id: int) -> "Rows":
        """The same rows with this token at every masked position, in place of the 80/10/10 corruption."""
        return replace(self, replacement_ids=np.full_like(self.replacement_ids, token_id))


@dataclass(frozen=True)
class Shard:
    """A mapped shard: one file seen as arrays of each width, and the places of its buffers.

    `table[batch, column]` = (index of the list offsets in `i32`, index of the values in the array of their width,
    number of values).
    """

    where: str
    i32: npt.NDArray[np.int32]
    u16: npt.NDArray[np.uint16]
    u8: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    table: npt.NDArray[np.int64]
    vocab_size: int

    def measure(
        self,
        slots: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        views: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> None:
        """Write into `lengths[slot]` the numbers of tokens, masked positions and steps of the row wanted in each slot.

        Args:
            slots: places in the batch that rows of this shard fill; `rows`: their numbers within the shard.
            views: view of every place of the batch; `lengths`: int64 [B, 3], written at `slots`.

        Raises:
            DataError: the shard's offsets are damaged.
        """
        self._complain(_measure(self.i32, self.table, BATCH_ROWS, slots, rows, views, lengths))

    def copy(
        self, slots: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64], out: Rows
    ) -> None:
        """Copy the rows measured before into their slices of `out`.

        Raises:
            DataError: a position lies outside its window or an id outside the vocabulary: the shard is damaged.
        """
        self._complain(
            _copy(
                self.i32, self.u16, self.u8, self.tokens, self.table, self.vocab_size, BATCH_ROWS, slots, rows, views,
                out.input_ids, out.offsets, out.segment_starts, out.positions, out.masked_offsets,
                out.replacement_ids, out.step_lengths, out.step_offsets,
            )
        )  # fmt: skip

    def _complain(self, bad_row: int) -> None:
        if bad_row >= 0:
            raise DataError(f"{self.where}, row {bad_row}: the shard is damaged; {REMAKE}.")


@njit(nogil=True)
def _span(i32, table, batch, column, row):  # type: ignore[no-untyped-def]
    """Begin and end of a row's values, or (0, -1) where they do not lie within the column."""
    at = table[batch, column, 0] + row
    begin, end = np.int64(i32[at]), np.int64(i32[at + 1])
    if 0 <= begin <= end <= table[batch, column, 2]:
        return begin, end
    return np.int64(0), np.int64(-1)


@njit(nogil=True)
def _measure(i32, table, batch_rows, slots, rows, views, lengths):  # type: ignore[no-untyped-def]
    for i in range(len(slots)):
        slot, batch, row = slots[i], rows[i] // batch_rows, rows[i] % batch_rows
        first = 2 + COLUMNS_PER_VIEW * views[slot]
        for k, column in enumerate((0, first, first + 1)):
            begin, end = _span(i32, table, batch, column, row)
            if end < begin:
                return rows[i]
            lengths[slot, k] = end - begin
        begin, end = _span(i32, table, batch, first + 2, row)
        if end - begin != lengths[slot, 1]:
            return rows[i]
    return -1


@njit(nogil=True)
def _copy(  # type: ignore[no-untyped-def]
    i32, u16, u8, tokens, table, vocab_size, batch_rows, slots, rows, views,
    input_ids, offsets, segment_starts, positions, masked_offsets, replacement_ids, step_lengths, step_offsets,
):  # fmt: skip
    for i in range(len(slots)):
        slot, batch, row = slots[i], rows[i] // batch_rows, rows[i] % batch_rows
        first = 2 + COLUMNS_PER_VIEW * views[slot]
        n = offsets[slot + 1] - offsets[slot]
        source = table[batch, 0, 1] + _span(i32, table, batch, 0, row)[0]
        highest = np.int64(0)
        for j in range(n):
            token = np.int64(tokens[source + j])
            highest = max(highest, token)
            input_ids[offsets[slot] + j] = token
        segment_starts[slot] = u16[table[batch, 1, 1] + row]
        begin, end = masked_offsets[slot], masked_offsets[slot + 1]
        source = table[batch, first, 1] + _span(i32, table, batch, first, row)[0]
        for j in range(end - begin):
            position = u16[source + j]
            if position >= n:
                return rows[i]
            positions[begin + j] = position
        source = table[batch, first + 2, 1] + _span(i32, table, batch, first + 2, row)[0]
        for j in range(end - begin):
            token = np.int64(tokens[source + j])
            highest = max(highest, token)
            replacement_ids[begin + j] = token
        source = table[batch, first + 1, 1] + _span(i32, table, batch, first + 1, row)[0]
        left = end - begin
        for j in range(step_offsets[slot + 1] - step_offsets[slot]):
            step_lengths[step_offsets[slot] + j] = u8[source + j]
            left -= u8[source + j]
        if left != 0 or segment_starts[slot] > n or highest >= vocab_size:
            return rows[i]
    return -1
