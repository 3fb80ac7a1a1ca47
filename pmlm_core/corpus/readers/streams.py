"""Bytes of a span, decompressed on the way, in chunks; nothing here holds more than a few megabytes.

Each chunk of a compressed file is handed on before the next is looked at, so what precedes a break is kept.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import zstandard

from pmlm_core.corpus.pieces import Span
from pmlm_core.storage import is_remote, resolve

_READ_LOCAL = 1 << 20
_READ_REMOTE = 8 << 20  # every read is a request there
_OUT = 1 << 20
# A zstd block of 4 bytes can stand for 128 KiB: feeding little at a time bounds what comes out at once.
_ZSTD_FEED = 4 << 10


class BrokenStreamError(Exception):
    """The file cannot be decoded from here on; `reason` is one of `rejects.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def chunks(span: Span) -> Iterator[bytes]:
    """Yield the bytes of `span`, decompressed.

    Raises:
        BrokenStreamError: the compressed data is damaged or ends early, or the file may not be read.
        OSError: the disk or the network failed.
    """
    raw = _raw(span)
    if span.source.compression == "gzip":
        return _gunzip(raw)
    if span.source.compression == "zstd":
        return _unzstd(raw)
    return raw


def _raw(span: Span) -> Iterator[bytes]:
    file_system, path = resolve(span.source.uri)
    step = _READ_REMOTE if is_remote(span.source.uri) else _READ_LOCAL
    try:
        file: Any = file_system.open_input_file(path)
    except PermissionError as error:
        raise BrokenStreamError("unreadable", str(error)) from None
    with file:
        file.seek(span.start)
        left = span.end - span.start
        while left > 0 and (chunk := file.read(min(step, left))):
            left -= len(chunk)
            yield chunk


def _gunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    member: Any = None
    for chunk in raw:
        data = chunk
        while data:
            if member is None:
                data = data.lstrip(b"\0")  # padding between members is allowed
                if not data:
                    break
                member = zlib.decompressobj(wbits=31)
            try:
                out = member.decompress(data, _OUT)
            except zlib.error as error:
                raise BrokenStreamError("corrupt_file", f"gzip: {error}") from None
            if out:
                yield out
            data = member.unconsumed_tail
            if member.eof:
                data, member = member.unused_data, None
    while member is not None and not member.eof:
        if out := member.decompress(member.unconsumed_tail, _OUT):
            yield out
        elif not member.eof:
            raise BrokenStreamError("truncated_file", "the gzip stream ends before its end mark")


def _unzstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    frame: Any = None
    for chunk in raw:
        for begin in range(0, len(chunk), _ZSTD_FEED):
            data = chunk[begin : begin + _ZSTD_FEED]
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    out = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise BrokenStreamError("corrupt_file", f"zstd: {error}") from None
                if out:
                    yield out
                data = b""
                if frame.eof:
                    data, frame = frame.unused_data, None
    if frame is not None:
        raise BrokenStreamError("truncated_file", "the zstd frame ends before its end mark")
