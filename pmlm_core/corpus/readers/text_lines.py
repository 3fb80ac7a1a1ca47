"""Plain text, a document a line. Blank lines are layout, not documents."""

from collections.abc import Iterator

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.readers.lines import lines
from pmlm_core.corpus.readers.text import Found, decoded
from pmlm_core.corpus.rejects import ReadProgress, Reject, excerpt


def read(span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    """Yield the documents and rejects of a span."""
    for row, offset, data, reason, detail in lines(span, fmt.max_document_bytes, index, progress):
        if reason is not None:
            yield Reject(index, row, offset, reason, excerpt(data), detail)
        elif data and not data.isspace():
            yield decoded(data, row, index, offset)
