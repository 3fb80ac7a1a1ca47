"""Lines of a text file, local or remote, plain or compressed, cut at line feeds only.

Published files hold characters that Python counts as line ends (U+2028, U+0085, lone carriage returns) inside their
texts, so the bytes are cut, not the decoded text. What is not UTF-8 is carried as lone surrogates ("surrogateescape"),
and found where a field is used: only then can row and field be named.
"""

import codecs
import io
from collections.abc import Iterator

from pmlm_core.errors import DataError
from pmlm_core.storage import resolve

_BUFFER = 1 << 20


def lines(uri: str) -> Iterator[str]:
    """Yield lines without their end (LF or CRLF) and without a byte-order mark.

    Raises:
        DataError: the file is not there, is damaged, or is UTF-16.
    """
    file_system, path = resolve(uri)
    try:
        with file_system.open_input_stream(path) as stream:
            for number, line in enumerate(io.BufferedReader(stream, _BUFFER), 1):
                if number == 1:
                    line = without_mark(line, uri)
                yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error}") from None


def contents(uri: str) -> bytes:
    """The bytes of a whole file, unpacked.

    Raises:
        DataError: the file is not there, or is damaged.
    """
    file_system, path = resolve(uri)
    try:
        with file_system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error}") from None


def without_mark(data: bytes, uri: str) -> bytes:
    """Take a UTF-8 byte-order mark off the beginning of a file.

    Raises:
        DataError: the mark is that of UTF-16.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{uri} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)
