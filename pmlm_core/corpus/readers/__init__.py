"""Reading: the documents of a piece, one at a time, whatever their form; what cannot be read is yielded as a reject."""

from collections.abc import Callable, Iterator

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Piece, Span
from pmlm_core.corpus.readers import jsonl, parquet, text_groups, text_lines
from pmlm_core.corpus.rejects import Document, ReadProgress, Reject

__all__ = ["Document", "InputFormat", "Piece", "ReadProgress", "Reject", "Span", "read_documents"]

_Reader = Callable[[Span, int, InputFormat, ReadProgress], Iterator[Document | Reject]]
READERS: dict[str, _Reader] = {
    "text_lines": text_lines.read,
    "text_blocks": text_groups.read_blocks,
    "text_files": text_groups.read_files,
    "wikitext": text_groups.read_wikitext,
    "jsonl": jsonl.read,
    "parquet": parquet.read,
}


def read_documents(piece: Piece, fmt: InputFormat, progress: ReadProgress | None = None) -> Iterator[Document | Reject]:
    """Yield the documents of `piece` in order, and a `Reject` for everything left out.

    Streams: memory is bounded by `fmt.max_document_bytes` plus a few megabytes, whatever the input holds.

    Args:
        piece: from `plan_pieces`.
        fmt: how to read it; the kind of each file was settled when it was listed.
        progress: if given, follows rows and bytes consumed.

    Raises:
        OSError: the disk or the network failed (as opposed to the content, which is rejected).
    """
    progress = progress if progress is not None else ReadProgress()
    for index, span in enumerate(piece.spans):
        progress.rows[index] = 0
        found_any = False
        if span.source.size:
            for found in READERS[span.source.kind](span, index, fmt, progress):
                found_any = True
                yield found
        if not found_any and span.first and span.last:
            detail = "only blank lines or no records" if span.source.size else "0 bytes"
            yield Reject(index, 0, None, "empty_file", "", detail)
