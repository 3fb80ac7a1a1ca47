"""A set of blocks, read by global row index: the immutable output of preprocessing, as training sees it."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmlm_core import storage
from pmlm_core.corpus import shard_cache
from pmlm_core.corpus.fetching import Fetching
from pmlm_core.corpus.manifest import FORMAT_VERSION, MANIFEST, Manifest, ShardEntry
from pmlm_core.corpus.shard_opening import open_batch, open_shard
from pmlm_core.corpus.shard_reader import Rows, Shard
from pmlm_core.corpus.shards import BATCH_ROWS, ShardWriter
from pmlm_core.errors import DataError

__all__ = [
    "BATCH_ROWS",
    "FORMAT_VERSION",
    "MANIFEST",
    "BlockSet",
    "Manifest",
    "Rows",
    "ShardEntry",
    "ShardWriter",
]

_MOST_AHEAD = 8  # steps
_EVICTIONS = 5


class BlockSet:
    """Rows 0..len-1 of one split, in the order of the manifest's shards.

    Opening reads the manifest alone; a shard is mapped and checked when a row of it is first wanted, and the `max_open`
    used last stay mapped. Of a shard on an object store, the record batches that hold wanted rows are fetched into a
    local cache (`shard_cache`), each by itself, and each is mapped like a shard; `fetch_ahead` does that in advance.
    Safe to use from several threads, and cheap to pickle (a copy maps its own shards).
    """

    def __init__(self, folder: str, manifest: Manifest, split: str, max_open: int = 4096) -> None:
        if split not in manifest.splits:
            raise DataError(f"{folder} has no split '{split}'; its manifest names {sorted(manifest.splits)}.")
        self.folder, self.manifest, self.split = folder, manifest, split
        self._remote = storage.is_remote(folder)
        self._units = [unit for entry in manifest.splits[split] for unit in _units(entry, self._remote)]
        self._starts = np.zeros(len(self._units) + 1, np.int64)
        np.cumsum([unit.rows for unit in self._units], out=self._starts[1:])
        self._max_open = max_open
        self._bounded = self._remote and shard_cache.limit() is not None
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching = Fetching(lambda number: self._local(self._units[number]))

    @classmethod
    def open(cls, folder: str, split: str = "train") -> "BlockSet":
        """Open a folder (local, s3://, gs://) that `pmlm preprocess` made.

        Raises:
            DataError: no finished blocks there, a manifest this version cannot read, or no such split.
        """
        return cls(folder, Manifest.load(folder), split)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[type["BlockSet"], tuple[str, Manifest, str, int]]:
        return BlockSet, (self.folder, self.manifest, self.split, self._max_open)

    def rows(self, indices: npt.ArrayLike, views: npt.ArrayLike) -> Rows:
        """Read B rows.

        Args:
            indices: int [B], global row numbers, any order, repeats allowed.
            views: int [B] or one int, the view wanted of each.

        Raises:
            DataError: a row or view that does not exist; a shard missing, truncated, damaged or of another set.
        """
        wanted = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        chosen = np.ascontiguousarray(np.broadcast_to(np.asarray(views, dtype=np.int64), wanted.shape))
        self._check_range(wanted, chosen)
        owners = self._owners(wanted)
        units = self._units_at(np.unique(owners).tolist())
        by_owner = np.argsort(owners, kind="stable")
        firsts = np.flatnonzero(np.diff(owners[by_owner], prepend=-1))
        groups = [
            (units[int(owners[slots[0]])], slots, wanted[slots] - self._starts[owners[slots[0]]])
            for slots in np.split(by_owner, firsts[1:])
            if len(slots)
        ]
        lengths = np.empty((len(wanted), 3), np.int64)
        for shard, slots, local in groups:
            shard.measure(slots, local, chosen, lengths)
        offsets = np.zeros((3, len(wanted) + 1), np.int64)
        np.cumsum(lengths.T, axis=1, out=offsets[:, 1:])
        tokens, masked, steps = offsets[:, -1]
        out = Rows(
            input_ids=np.empty(tokens, np.int32),
            offsets=offsets[0],
            segment_starts=np.empty(len(wanted), np.int32),
            positions=np.empty(masked, np.int32),
            masked_offsets=offsets[1],
            replacement_ids=np.empty(masked, np.int32),
            step_lengths=np.empty(steps, np.int32),
            step_offsets=offsets[2],
        )
        for shard, slots, local in groups:
            shard.copy(slots, local, chosen, out)
        return out

    def fetch_ahead(self, indices: npt.ArrayLike) -> None:
        """Have what holds these rows fetched in the background, where the set lies on an object store."""
        if self._remote:
            numbers = np.unique(self._owners(np.asarray(indices, dtype=np.int64))).tolist()
            with self._lock:
                absent = [number for number in numbers if number not in self._open]
            self._fetching.ask(absent)

    def steps_ahead(self, batch_size: int) -> int:
        """For how many steps of `batch_size` rows `fetch_ahead` should be asked at a time.

        Nothing that was fetched ahead may be evicted before it is used: what is on its way takes at most half of
        `PMLM_CACHE_GB`, though all workers share one machine.
        """
        if not self._remote or not self._units:
            return 0
        bound = shard_cache.limit()
        if bound is None:
            return _MOST_AHEAD
        step = batch_size * sum(unit.nbytes for unit in self._units) / len(self._units)
        return max(1, min(_MOST_AHEAD, int(bound / 2 / step)))

    def damaged(self) -> list[str]:
        """Read every shard; paths of those that are missing, or whose digest is not the manifest's.

        Slow, for doubts about a disk. Of a set on an object store it fetches everything.

        Raises:
            DataError: a part in the store is damaged; OSError: it failed.
        """
        found = ((self._local(unit), unit.sha256) for unit in self._units)
        return [path for path, sha256 in found if not os.path.exists(path) or shard_cache.digest_of(path) != sha256]

    def _owners(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Numbers of the units that hold these rows."""
        return np.searchsorted(self._starts, wanted, side="right") - 1

    def _check_range(self, wanted: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> None:
        if not len(wanted):
            return
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise DataError(
                f"Rows {wanted.min()}..{wanted.max()} wanted; '{self.split}' of {self.folder} has {len(self)}."
            )
        if chosen.min() < 0 or chosen.max() >= self.manifest.views:
            raise DataError(f"View {chosen.max()} wanted; {self.folder} holds views 0..{self.manifest.views - 1}.")

    def _units_at(self, numbers: list[int]) -> dict[int, Shard]:
        """These units, mapped; what is not here yet is fetched, several at a time."""
        if self._bounded:  # what was evicted takes up the disk until nobody maps it
            with self._lock:
                for number in [n for n, shard in self._open.items() if not os.path.exists(shard.where)]:
                    del self._open[number]
        found: dict[int, Shard] = {}
        with self._lock:
            for number in numbers:
                if (shard := self._open.get(number)) is not None:
                    self._open.move_to_end(number)
                    found[number] = shard
        absent = [number for number in numbers if number not in found]
        if self._remote:
            for shard in found.values():
                shard_cache.touch(shard.where)
            self._fetching.wait(absent)
        for number in absent:
            found[number] = self._mapped(self._units[number])
            with self._lock:
                self._open[number] = found[number]
                if len(self._open) > self._max_open:
                    self._open.popitem(last=False)  # unmapped once no batch holds it
        return found

    def _mapped(self, unit: "_Unit") -> Shard:
        for _ in range(_EVICTIONS):
            path = self._local(unit)
            try:
                if unit.batch is None:
                    return open_shard(path, unit.entry, self.manifest)
                return open_batch(path, unit.entry, unit.batch, self.manifest)
            except DataError:
                if not self._remote or os.path.exists(path):
                    raise
        raise DataError(
            f"{unit.entry.path} of {self.folder} was evicted {_EVICTIONS} times before it could be read: raise "
            f"{shard_cache.LIMIT_VARIABLE}, which all processes of this machine share"
        )

    def _local(self, unit: "_Unit") -> str:
        uri = storage.join(self.folder, unit.entry.path)
        if not self._remote:
            return storage.absolute(uri)
        if unit.batch is None:
            return shard_cache.fetch(shard_cache.whole(uri, unit.entry))
        return shard_cache.fetch(shard_cache.batch_of(uri, unit.entry, unit.batch))


@dataclass(frozen=True)
class _Unit:
    """What is fetched and mapped together: a shard or, with `batch`, one record batch of it."""

    entry: ShardEntry
    batch: int | None = None

    @property
    def rows(self) -> int:
        return self.entry.rows if self.batch is None else min(BATCH_ROWS, self.entry.rows - self.batch * BATCH_ROWS)

    @property
    def nbytes(self) -> int:
        return self.entry.bytes if self.batch is None else self.entry.part_bytes[self.batch]

    @property
    def sha256(self) -> str:
        return self.entry.sha256 if self.batch is None else self.entry.part_sha256[self.batch]


def _units(entry: ShardEntry, remote: bool) -> list[_Unit]:
    if not remote or not entry.part_bytes:
        return [_Unit(entry)]
    batches = -(-entry.rows // BATCH_ROWS)
    if not batches == len(entry.part_bytes) == len(entry.part_sha256):
        raise DataError(
            f"the manifest names {len(entry.part_bytes)} parts of {entry.path}, which has {batches} record batches; "
            "run `pmlm preprocess` again."
        )
    return [_Unit(entry, number) for number in range(batches)]
