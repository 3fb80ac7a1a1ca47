"""Cutting the input into pieces: big files into spans that begin at a document, small files grouped together.

A piece is what one task reads and one shard holds. Cuts lie at the first document start after each multiple of
`piece_bytes`, so a file that grows at its end keeps its earlier spans. A piece is identified by the digest of its
bytes, not by its name or place.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pmlm_core.corpus.boundaries import first_start
from pmlm_core.corpus.sources import Source
from pmlm_core.storage import is_transport_error, resolve

DEFAULT_PIECE_BYTES = 32 << 20
# Text compressed with gzip or zstd is about three times as long; a piece is measured by its text.
_EXPANSION = 3
_READ = 1 << 20
_CUTTABLE = ("text_lines", "text_blocks", "jsonl", "wikitext")


@dataclass(frozen=True)
class Span:
    """Part of a file: bytes `start..end` of text, row groups `start..end` of Parquet; the whole if compressed.

    `first` and `last` say whether the span begins and ends with its file; `weight` is its bytes of text, about. A
    damaged Parquet file, whose row groups cannot be listed, is one span `0..-1`.
    """

    source: Source
    start: int
    end: int
    first: bool
    last: bool
    weight: int


@dataclass(frozen=True)
class Piece:
    """Spans read one after another into one shard."""

    spans: tuple[Span, ...]

    @property
    def weight(self) -> int:
        """Bytes of text, about."""
        return sum(span.weight for span in self.spans)


Mapper = Callable[[Callable[[Source], list[Span]], Iterable[Source]], Iterable[list[Span]]]


def plan_pieces(sources: list[Source], piece_bytes: int = DEFAULT_PIECE_BYTES, map: Mapper | Any = map) -> list[Piece]:
    """Cut and group `sources` into pieces of about `piece_bytes` bytes of text, in the order of the sources.

    Reads only around the cuts. The plan depends on the files alone, never on who runs it.

    Args:
        sources: from `list_sources`.
        piece_bytes: wanted size of a piece in bytes of text; compressed files count three times their size.
        map: how to go through the sources, for example `ThreadPoolExecutor().map`.
    """
    spans = itertools.chain.from_iterable(map(partial(cut, piece_bytes=piece_bytes), sources))
    return list(_group(spans, piece_bytes))


def cut(source: Source, piece_bytes: int) -> list[Span]:
    """Cut one file into spans of about `piece_bytes`; one that may not be read stays whole, and its reader says so."""
    try:
        return _cut(source, piece_bytes)
    except PermissionError:
        return [Span(source, 0, -1 if source.kind == "parquet" else source.size, True, True, source.size)]


def _cut(source: Source, piece_bytes: int) -> list[Span]:
    if source.kind == "parquet":
        return _cut_parquet(source, piece_bytes)
    if source.compression or source.kind not in _CUTTABLE or source.size <= piece_bytes:
        weight = source.size * (_EXPANSION if source.compression else 1)
        return [Span(source, 0, source.size, True, True, weight)]
    file_system, path = resolve(source.uri)
    starts = [0]
    with file_system.open_input_file(path) as file:
        for nominal in range(piece_bytes, source.size, piece_bytes):
            # Looking only as far as the next cut keeps a file that is one endless line from being read over and over.
            start = first_start(file, source.kind, nominal, min(nominal + piece_bytes, source.size))
            if start is not None and starts[-1] < start < source.size:
                starts.append(start)
    ends = [*starts[1:], source.size]
    return [
        Span(source, start, end, first=start == 0, last=end == source.size, weight=end - start)
        for start, end in zip(starts, ends, strict=True)
    ]


def _cut_parquet(source: Source, piece_bytes: int) -> list[Span]:
    file_system, path = resolve(source.uri)
    try:
        with file_system.open_input_file(path) as file:
            metadata = pq.read_metadata(file)
            sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and is_transport_error(error):
            raise
        return [Span(source, 0, -1, True, True, source.size)]  # the reader says what is wrong with it
    if not sizes:
        return [Span(source, 0, 0, True, True, source.size)]
    spans, start, held = [], 0, 0
    for index, nbytes in enumerate(sizes):
        if held and held + nbytes > piece_bytes:
            spans.append((start, index))
            start, held = index, 0
        held += nbytes
    spans.append((start, len(sizes)))
    return [
        Span(source, begin, end, first=begin == 0, last=end == len(sizes), weight=sum(sizes[begin:end]))
        for begin, end in spans
    ]


def _group(spans: Iterable[Span], piece_bytes: int) -> Iterator[Piece]:
    held: list[Span] = []
    weight = 0
    for span in spans:
        if held and (weight + span.weight > piece_bytes or _begins_a_piece(span, piece_bytes)):
            yield Piece(tuple(held))
            held, weight = [], 0
        held.append(span)
        weight += span.weight
    if held:
        yield Piece(tuple(held))


def _begins_a_piece(span: Span, piece_bytes: int) -> bool:
    """Whether a piece begins at this file by its name alone, about once every `piece_bytes`.

    Filling pieces greedily would shift all groups behind a file that is added later, and make all their shards anew.
    """
    name = f"{span.source.uri.rsplit('/', 1)[-1]} {span.source.size}"
    fraction = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") / 2**64
    return span.first and fraction < span.weight / piece_bytes


def span_digest(span: Span) -> str:
    """SHA-256 (hex) of the bytes a span stands for; of some row groups, also of the file's schema, which names them.

    Of a file that may not be read, of its name, size and time.
    """
    try:
        return _span_digest(span)
    except PermissionError:
        source = span.source
        what = ("unreadable", source.uri, source.size, source.mtime_ns, span.start, span.end)
        return hashlib.sha256(repr(what).encode()).hexdigest()


def _span_digest(span: Span) -> str:
    sha = hashlib.sha256()
    file_system, path = resolve(span.source.uri)
    with file_system.open_input_file(path) as file:
        if span.source.kind == "parquet" and not (span.first and span.last):
            # The bytes of a column do not say which column it is.
            sha.update(str(pq.read_schema(file).remove_metadata()).encode())
        add_ranges(sha, file, _byte_ranges(span, file))
    return sha.hexdigest()


def add_ranges(sha: Any, file: Any, ranges: Iterable[tuple[int, int]]) -> None:
    """Add the bytes `start..end` of an open file to a hash, each range after the one before it."""
    for start, end in ranges:
        file.seek(start)
        while start < end and (chunk := file.read(min(_READ, end - start))):
            sha.update(chunk)
            start += len(chunk)


def _byte_ranges(span: Span, file: Any) -> list[tuple[int, int]]:
    if span.source.kind != "parquet" or (span.first and span.last):
        return [(0, span.source.size)] if span.source.kind == "parquet" else [(span.start, span.end)]
    metadata = pq.read_metadata(file)
    ranges = []
    for group in range(span.start, span.end):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            offset = chunk.data_page_offset
            if chunk.dictionary_page_offset is not None:
                offset = min(offset, chunk.dictionary_page_offset)
            ranges.append((offset, offset + chunk.total_compressed_size))
    return ranges


def piece_digest(piece: Piece) -> str:
    """SHA-256 (hex) over the kinds and digests of a piece's spans: what its documents are, wherever they lie."""
    sha = hashlib.sha256()
    for span in piece.spans:
        how = (span.source.kind, span.source.compression, span.first, span.last, span_digest(span))
        sha.update(f"{how}\n".encode())
    return sha.hexdigest()
