"""One piece of input to finished shards: a pure function of the piece's bytes, the options and the tokenizer.

Nothing here knows of Ray: a task, a process pool or a test calls `run_piece`. It reads, tokenizes, packs and masks in
batches, so that memory is bounded by the longest document.
"""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pmlm_core import storage
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.holdout import TRAIN, VALIDATION, HeldOut
from pmlm_core.corpus.ledger import LedgerRow, is_finished, load_row, save_row
from pmlm_core.corpus.manifest import FORMAT_VERSION, ShardEntry
from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.packing import Packer
from pmlm_core.corpus.pieces import Piece, piece_digest
from pmlm_core.corpus.readers import read_documents
from pmlm_core.corpus.rejects import Document, ReadProgress, Reject, RejectLog, excerpt
from pmlm_core.corpus.reports import place
from pmlm_core.corpus.shards import ShardWriter
from pmlm_core.corpus.sources import modified
from pmlm_core.corpus.text_cuts import cut
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import DataError
from pmlm_core.randomness import key

# Raised when the same input and options begin to give other documents, tokens or counts, so that old work is not used.
_READER_VERSION = 3
_BATCH_CHARACTERS = 1 << 18
_BATCH_DOCUMENTS = 1024
_NO_TOKEN = "the tokenizer makes no token of it"
_LONG_CHARACTERS = 1 << 22  # a longer document is encoded part by part


@dataclass(frozen=True)
class ShardOptions:
    """Everything that decides the content of shards, apart from the input and the tokenizer.

    Attributes:
        fmt: how to read the input.
        max_length: tokens of a window, specials included.
        documents_share_windows: whether a window may hold the end of one document and the start of the next.
        views: independent maskings of every window.
        mask_prob, block_prob, min_block, max_block: of Algorithm 1 (docs/method.md, 2).
        validation_fraction: share of the text that is held out, decided by content (see `holdout`).
        seed: of every draw.
    """

    fmt: InputFormat = field(default_factory=InputFormat)
    max_length: int = 512
    documents_share_windows: bool = True
    views: int = 4
    mask_prob: float = 0.15
    block_prob: float = 0.4
    min_block: int = 2
    max_block: int = 6
    validation_fraction: float = 0.005
    seed: int = 0


def options_fingerprint(options: ShardOptions, tokenizer: TextTokenizer) -> str:
    """SHA-256 (hex) of all that decides a shard besides its input.

    The form asked for (`fmt.kind`) is left out: the form each file was read in belongs to the piece.
    """
    what = asdict(options)
    del what["fmt"]["kind"]
    parts = (FORMAT_VERSION, _READER_VERSION, tokenizer.fingerprint, sorted(what.items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def run_piece(
    piece: Piece, options: ShardOptions, tokenizer: TextTokenizer, output_dir: str, strict: bool = False
) -> LedgerRow:
    """Make the shards of one piece below `output_dir`, unless they are there already.

    Writes `shards/<key>.arrow` and `shards/<key>.validation.arrow` (those that have rows), then `ledger/<key>.json`,
    each whole or not at all. Equal arguments give equal bytes, wherever and however often this runs.

    Args:
        piece: from `plan_pieces`.
        options: what to make of it.
        tokenizer: text to ids.
        output_dir: local folder, s3:// or gs://.
        strict: stop at the first thing that would be left out.

    Raises:
        DataError: under `strict`, with file, row and reason; or a file has changed since it was listed.
        OSError: the disk or the network failed.
    """
    digest = piece_digest(piece)
    fingerprint = options_fingerprint(options, tokenizer)
    name = hashlib.sha256(f"{digest} {fingerprint}".encode()).hexdigest()[:32]
    known = load_row(output_dir, name)
    if known is not None and not (strict and known.rejects["counts"]) and is_finished(output_dir, known):
        _require_unchanged(piece)
        mine = known.for_piece(piece)
        if not known.describes(piece):  # the same bytes under another name: the next run must find them by it
            save_row(output_dir, mine)
        return mine
    progress, rejects = ReadProgress(), RejectLog()
    splits = {split: _Split(split, digest, options, tokenizer, output_dir) for split in (TRAIN, VALIDATION)}
    tokens = 0

    def leave_out(found: Reject) -> None:
        if strict:
            raise DataError(f"{place(piece.spans[found.span], found)}; without --strict it would be set aside")
        rejects.add(found)

    try:
        for batch in _batches(piece, options, progress, leave_out):
            made: Counter[tuple[int, int]] = Counter()
            texts = [text for _, text, _ in batch]
            for (split_name, _, document), ids in zip(batch, _encode(tokenizer, texts), strict=True):
                made[document.span, document.row] += len(ids)
                splits[split_name].packer.add(ids)
            tokens += made.total()
            for place_of, number in made.items():  # a document may have several parts
                if not number:
                    document = next(each for _, _, each in batch if (each.span, each.row) == place_of)
                    leave_out(Reject(*place_of, None, "empty_text", excerpt(document.text), _NO_TOKEN))
                    progress.take_back(document)
            for split in splits.values():
                split.write()
        _require_unchanged(piece)  # before anything bears the digest's name
        entries = {split.name: entry for split in splits.values() if (entry := split.finish(name)) is not None}
    finally:
        for split in splits.values():
            split.discard()
    row = LedgerRow(
        key=name,
        digest=digest,
        fingerprint=fingerprint,
        spans=LedgerRow.describe(piece),
        span_rows=[progress.rows.get(index, 0) for index in range(len(piece.spans))],
        counts={
            "documents": progress.documents,
            "input_bytes": progress.input_bytes,
            "text_bytes": progress.text_bytes,
            "text_tokens": tokens,
            "dropped_tokens": sum(split.packer.dropped_tokens for split in splits.values()),
            "lost_rows": progress.lost_rows,
        },
        rejects=rejects.as_dict(),
        shards=entries,
    )
    save_row(output_dir, row)
    return row


def _require_unchanged(piece: Piece) -> None:
    """Refuse files that are not what was planned for: a piece is read twice, for its digest and for its text."""
    for source in {span.source for span in piece.spans}:
        file_system, path = storage.resolve(source.uri)
        try:
            info = file_system.get_file_info(path)
        except PermissionError:  # the reader has set it aside
            continue
        # A store tells the time of one object in whole seconds, of listed ones it may tell fractions.
        unit = 10**9 if storage.is_remote(source.uri) else 1
        if (info.size, modified(source.uri, info.mtime_ns) // unit) != (source.size, source.mtime_ns // unit):
            raise DataError(
                f"{source.uri} has changed since this run listed it ({source.size:,} bytes then, {info.size or 0:,} "
                "now); when nothing writes to it any more, the same command reads it as it is"
            )


def _batches(
    piece: Piece, options: ShardOptions, progress: ReadProgress, leave_out: Callable[[Reject], None]
) -> Iterator[list[tuple[str, str, Document]]]:
    """Yield lists of (split, text, the document it is of); a document's parts stay in one list."""
    held_out = HeldOut(options.validation_fraction, options.seed)
    batch: list[tuple[str, str, Document]] = []
    characters = 0
    for found in read_documents(piece, options.fmt, progress):
        if isinstance(found, Reject):
            leave_out(found)
            continue
        progress.take(found)
        batch.extend((split, text, found) for split, text in held_out.parts(found.text))
        characters += len(found.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(tokenizer: TextTokenizer, texts: list[str]) -> list[npt.NDArray[np.int32]]:
    if all(len(text) <= _LONG_CHARACTERS for text in texts):
        return tokenizer.encode(texts)
    return [_encode_long(tokenizer, text) for text in texts]


def _encode_long(tokenizer: TextTokenizer, text: str) -> npt.NDArray[np.int32]:
    """Encode part by part: a tokenizer needs many times the memory of the text it works on."""
    if len(text) <= _LONG_CHARACTERS:
        return tokenizer.encode([text])[0]
    return np.concatenate([tokenizer.encode([part])[0] for part in cut(text, _LONG_CHARACTERS // 4, _LONG_CHARACTERS)])


class _Split:
    """The shard of one split while it is being written."""

    def __init__(
        self, name: str, digest: str, options: ShardOptions, tokenizer: TextTokenizer, output_dir: str
    ) -> None:
        self.name = name
        self._options = options
        self._tokenizer = tokenizer
        self._output_dir = output_dir
        self._key = key(options.seed, "shard", digest, name)
        self.packer = Packer(
            options.max_length, tokenizer.special_ids, options.documents_share_windows, stream_key=self._key
        )
        self._file: BinaryIO | None = None
        self._temporary: Path | None = None
        self._writer: ShardWriter | None = None

    def write(self, last: bool = False) -> None:
        """Mask and write the windows that are complete (`last`: all that is left)."""
        windows = self.packer.flush() if last else self.packer.drain()
        if not len(windows):
            return
        writer = self._writer or self._open()
        options = self._options
        views = [
            mask_windows(
                windows,
                view=view,
                stream_key=self._key,
                first_row=writer.rows,
                special_ids=self._tokenizer.special_ids,
                ordinary_ids=self._tokenizer.ordinary_ids,
                mask_prob=options.mask_prob,
                block_prob=options.block_prob,
                min_block=options.min_block,
                max_block=options.max_block,
            )
            for view in range(options.views)
        ]
        writer.write(windows, views)

    def finish(self, name: str) -> ShardEntry | None:
        """Put the shard in its place; None if it would hold nothing."""
        self.write(last=True)
        if self._writer is None or self._file is None or self._temporary is None:
            return None
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = f"shards/{name}.arrow" if self.name == TRAIN else f"shards/{name}.{self.name}.arrow"
        storage.publish(self._temporary, storage.join(self._output_dir, *path.split("/")))
        self._temporary = None
        return self._writer.entry(path)

    def discard(self) -> None:
        """Remove what an error left behind."""
        if self._temporary is not None and self._file is not None:
            with contextlib.suppress(OSError):  # closing writes what is left, which a full disk refuses once more
                self._file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def _open(self) -> ShardWriter:
        if storage.is_remote(self._output_dir):
            folder = Path(tempfile.gettempdir())
        else:
            folder = Path(storage.absolute(self._output_dir)) / "shards"
            folder.mkdir(parents=True, exist_ok=True)
        self._temporary = folder / f".pmlm-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        self._file = open(self._temporary, "wb")  # noqa: SIM115
        self._writer = ShardWriter(
            self._file,
            views=self._options.views,
            vocab_size=self._tokenizer.vocab_size,
            max_length=self._options.max_length,
            tokenizer_fingerprint=self._tokenizer.fingerprint,
        )
        return self._writer
