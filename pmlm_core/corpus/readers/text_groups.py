"""Documents of several lines: whole files, blocks between blank lines, articles of the WikiText form.

One gatherer does all three; they differ in where a document ends. One over the limit is left out without being held.
"""

import re
from collections.abc import Callable, Iterator

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Span
from pmlm_core.corpus.readers.lines import Line, lines
from pmlm_core.corpus.readers.text import Found, decoded
from pmlm_core.corpus.rejects import Document, ReadProgress, Reject, excerpt

_ARTICLE = re.compile(rb" = [^=\s].* = ?")
_MARKS = re.compile(r" (?:= )+")


class _Gatherer:
    """The lines of the document being read."""

    def __init__(self, index: int, limit: int) -> None:
        self.index = index
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        self.held: list[bytes] = []
        self.row = 0
        self.offset: int | None = None
        self.length = 0
        self.ill_fated = False

    def add(self, line: Line) -> None:
        if not self.row:
            self.row, self.offset = line.row, line.offset
        self.length += len(line.data) + 1
        if line.reason is not None or self.length - 1 > self.limit:
            self.ill_fated = True
        if not self.ill_fated or not self.held:
            self.held.append(line.data)
        elif len(self.held) > 1:
            self.held = self.held[:1]

    def finish(self) -> Iterator[Found]:
        if self.ill_fated:
            detail = f"more than max_document_bytes, {self.limit:,} bytes"
            yield Reject(self.index, self.row, self.offset, "too_long", excerpt(self.held[0]), detail)
        elif self.held and (raw := b"\n".join(self.held)) and not raw.isspace():
            yield decoded(raw, self.row, self.index, self.offset)
        self.clear()


def _gathered(
    span: Span, index: int, fmt: InputFormat, progress: ReadProgress, ends_before: Callable[[bytes, bytes], bool]
) -> Iterator[Found]:
    """Yield a document whenever `ends_before(previous line, this line)` holds, and at the end of the span."""
    gatherer = _Gatherer(index, fmt.max_document_bytes)
    previous = b""
    for line in lines(span, fmt.max_document_bytes, index, progress):
        if line.reason not in (None, "too_long"):
            # What was gathered may have been cut anywhere: it goes with the break.
            yield Reject(
                index, gatherer.row or line.row, line.offset, str(line.reason), excerpt(line.data), line.detail
            )
            return
        if ends_before(previous, line.data):
            yield from gatherer.finish()
        gatherer.add(line)
        previous = line.data
    yield from gatherer.finish()


def _blank(line: bytes) -> bool:
    return not line or line.isspace()


def read_blocks(span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    """Documents separated by blank lines."""
    yield from _gathered(span, index, fmt, progress, lambda previous, line: _blank(line) != _blank(previous))


def read_files(span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    """The whole file is one document."""
    yield from _gathered(span, index, fmt, progress, lambda previous, line: False)


def read_wikitext(span: Span, index: int, fmt: InputFormat, progress: ReadProgress) -> Iterator[Found]:
    """Articles of the WikiText form; heading marks and the joiners ` @-@ `, ` @,@ `, ` @.@ ` are undone."""

    def begins(previous: bytes, line: bytes) -> bool:
        return line.startswith(b" = ") and _blank(previous) and _ARTICLE.fullmatch(line) is not None

    for found in _gathered(span, index, fmt, progress, begins):
        if isinstance(found, Document):
            yield found._replace(text=_unmarked(found.text))
        else:
            yield found


def _unmarked(text: str) -> str:
    for joiner in "-,.":
        text = text.replace(f" @{joiner}@ ", joiner)
    out = []
    for line in text.split("\n"):
        marks = _MARKS.match(line)
        out.append(_title(line[marks.end() :]) or line if marks else line)
    return "\n".join(out)


def _title(rest: str) -> str:
    """A heading without the marks behind it; "" if there are none.

    By hand: one pattern for both sides takes cubic time over a line of marks.
    """
    end = whole = len(rest.removesuffix(" "))
    while rest.endswith(" =", 0, end):
        end -= 2
    return rest[:end] if end < whole else ""
