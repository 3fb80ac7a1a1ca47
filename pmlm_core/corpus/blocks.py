"""A set of blocks, read by global row index: the immutable output of preprocessing, as training sees it."""

import os
import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from pmlm_core import storage
from pmlm_core.corpus import shard_cache
from pmlm_core.corpus.manifest import FORMAT_VERSION, MANIFEST, Manifest, ShardEntry
from pmlm_core.corpus.shard_reader import Rows, Shard, open_shard
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


class BlockSet:
    """Rows 0..len-1 of one split, in the order of the manifest's shards.

    Opening reads the manifest alone; a shard is mapped and checked when a row of it is first wanted, and the `max_open`
    used last stay mapped. Shards on an object store are fetched whole into a local cache (`shard_cache`). Safe to use
    from several threads, and cheap to pickle (a copy maps its own shards).
    """

    def __init__(self, folder: str, manifest: Manifest, split: str, max_open: int = 4096) -> None:
        if split not in manifest.splits:
            raise DataError(f"{folder} has no split '{split}'; its manifest names {sorted(manifest.splits)}.")
        self.folder, self.manifest, self.split = folder, manifest, split
        self._entries = manifest.splits[split]
        self._starts = np.zeros(len(self._entries) + 1, np.int64)
        np.cumsum([entry.rows for entry in self._entries], out=self._starts[1:])
        self._max_open = max_open
        self._remote = storage.is_remote(folder)
        self._bounded = self._remote and shard_cache.limit() is not None
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

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

    def require_tokenizer(self, fingerprint: str) -> None:
        """Refuse blocks of another tokenizer.

        Raises:
            DataError: the fingerprints differ.
        """
        if fingerprint != self.manifest.tokenizer_fingerprint:
            raise DataError(
                f"{self.folder} was made with tokenizer {self.manifest.tokenizer_fingerprint[:12]}, not with "
                f"{fingerprint[:12]}: ids would mean other tokens. Use the tokenizer in {self.folder}/tokenizer, or "
                "run `pmlm preprocess` with yours into a new output_dir."
            )

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
        owners = np.searchsorted(self._starts, wanted, side="right") - 1
        by_owner = np.argsort(owners, kind="stable")
        firsts = np.flatnonzero(np.diff(owners[by_owner], prepend=-1))
        groups = [
            (self._shard(int(owners[slots[0]])), slots, wanted[slots] - self._starts[owners[slots[0]]])
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

    def verify(self) -> None:
        """Read every shard and compare its digest with the manifest's: slow, for doubts about a disk or a transfer.

        Raises:
            DataError: the first shard that differs.
        """
        for entry in self._entries:
            path = self._local(entry)
            digest = shard_cache.digest_of(path) if os.path.exists(path) else "a missing file"
            if digest != entry.sha256:
                raise DataError(f"{path} has digest {digest[:14]}, the manifest says {entry.sha256[:14]}; remake it.")

    def _check_range(self, wanted: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> None:
        if not len(wanted):
            return
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise DataError(
                f"Rows {wanted.min()}..{wanted.max()} wanted; '{self.split}' of {self.folder} has {len(self)}."
            )
        if chosen.min() < 0 or chosen.max() >= self.manifest.views:
            raise DataError(f"View {chosen.max()} wanted; {self.folder} holds views 0..{self.manifest.views - 1}.")

    def _shard(self, number: int) -> Shard:
        with self._lock:
            shard = self._open.get(number)
            if shard is None:
                shard = self._open[number] = self._mapped(self._entries[number])
                if len(self._open) > self._max_open:
                    self._open.popitem(last=False)  # unmapped once no batch holds it
            else:
                self._open.move_to_end(number)
                if self._remote:
                    shard_cache.touch(shard.where)
            return shard

    def _mapped(self, entry: ShardEntry) -> Shard:
        path = self._local(entry)
        if self._bounded:  # what was evicted takes up the disk until nobody maps it
            for number in [n for n, shard in self._open.items() if not os.path.exists(shard.where)]:
                del self._open[number]
        try:
            return open_shard(path, entry, self.manifest)
        except DataError:
            if not self._bounded or os.path.exists(path):
                raise
            return open_shard(self._local(entry), entry, self.manifest)  # evicted before it was mapped

    def _local(self, entry: ShardEntry) -> str:
        uri = storage.join(self.folder, entry.path)
        return shard_cache.fetch(uri, entry) if self._remote else storage.absolute(uri)
