"""Where a document may begin in plain text: what lets a big file be cut and read by several tasks.

Each pattern's match ends at a document start. The answer depends on the bytes after `at` alone, so that the end of one
span and the start of the next are the same place.
"""

import re
from typing import Any

HEADING = rb" = [^=\s][^\n]* = ?\r?\n"
STARTS = {
    "text_lines": re.compile(rb"\n"),
    "jsonl": re.compile(rb"\n"),
    "text_blocks": re.compile(rb"\n[ \t]*\r?\n"),
    "wikitext": re.compile(rb"\n[ \t]*\r?\n(?=" + HEADING + rb")"),
}
_CHUNK = 1 << 20
_OVERLAP = 4096


def first_start(file: Any, kind: str, at: int, limit: int) -> int | None:
    """Offset of the first document start in `at..limit`, or None if there is none.

    Args:
        file: a file that seeks and reads bytes.
        kind: a key of `STARTS`.
        at, limit: byte offsets; `at` is at least 1.
    """
    pattern = STARTS[kind]
    file.seek(at - 1)
    position, tail = at - 1, b""
    while position < limit:
        chunk = file.read(_CHUNK)
        if not chunk:
            return None
        window = tail + chunk
        base = position - len(tail)
        match = pattern.search(window)
        if match:
            start = base + match.end()
            return start if start < limit else None
        tail = window[-_OVERLAP:]
        position += len(chunk)
    return None
