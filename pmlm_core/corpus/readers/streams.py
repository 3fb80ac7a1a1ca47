"""Bytes of a span, decompressed on the way, in chunks of at most a megabyte or so, whatever the file holds."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pmlm_core.corpus.pieces import Span
from pmlm_core.storage import is_remote, is_transport_error, resolve

_READ_LOCAL = 1 << 20
_READ_REMOTE = 8 << 20  # every read is a request there


class BrokenStreamError(Exception):
    """The file cannot be decoded from here on; `reason` is one of `rejects.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def chunks(span: Span) -> Iterator[bytes]:
    """Yield the bytes of `span`, decompressed.

    Raises:
        BrokenStreamError: the compressed data is damaged or ends early, or the file may not be read; all bytes before
            the break have been yielded.
        OSError: the disk or the network failed.
    """
    try:
        with _open(span) as file:
            yield from _plain(file, span) if span.source.compression is None else _unpacked(file, span)
    except PermissionError as error:
        raise BrokenStreamError("unreadable", str(error)) from None


def _open(span: Span) -> Any:
    file_system, path = resolve(span.source.uri)
    return file_system.open_input_file(path)


def _plain(file: Any, span: Span) -> Iterator[bytes]:
    step = _READ_REMOTE if is_remote(span.source.uri) else _READ_LOCAL
    file.seek(span.start)
    left = span.end - span.start
    while left > 0 and (chunk := file.read(min(step, left))):
        left -= len(chunk)
        yield chunk


def _unpacked(file: Any, span: Span) -> Iterator[bytes]:
    given = 0
    try:
        stream = pa.CompressedInputStream(file, span.source.compression)
        while chunk := stream.read(_READ_LOCAL):
            given += len(chunk)
            yield chunk
    except OSError as error:
        if is_transport_error(error):
            raise
        # The read that met the break gave nothing, although good bytes may come before it: go there once more.
        yield from _up_to_the_break(span, given)
        truncated = "truncated" in str(error).lower()
        raise BrokenStreamError("truncated_file" if truncated else "corrupt_file", str(error)) from None


def _up_to_the_break(span: Span, skip: int) -> Iterator[bytes]:
    found = bytearray()
    with _open(span) as file:
        stream = pa.CompressedInputStream(file, span.source.compression)
        try:
            while skip:
                skip -= len(stream.read(min(skip, _READ_LOCAL)))
            while byte := stream.read(1):
                found += byte
        except OSError as error:
            if is_transport_error(error):
                raise
    if found:
        yield bytes(found)
