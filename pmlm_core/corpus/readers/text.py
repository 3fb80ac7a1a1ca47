"""Bytes to text, with the checks every form shares."""

from pmlm_core.corpus.rejects import Document, Reject, excerpt

Found = Document | Reject


def decoded(raw: bytes, row: int, span: int, offset: int | None) -> Found:
    """Decode one document, or say why it is left out (invalid UTF-8, NUL characters).

    Args:
        raw: the bytes of the document.
        row, span: where it stands.
        offset: of `raw` in the file, None in a compressed one.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        at = None if offset is None else offset + error.start
        detail = f"byte 0x{raw[error.start]:02x} at byte {error.start} of the document"
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            detail += "; the file looks like UTF-16, convert it first"
        return Reject(span, row, at, "invalid_utf8", excerpt(raw[max(0, error.start - 30) :]), detail)
    if "\x00" in text:
        at = raw.index(b"\x00")
        return Reject(span, row, None if offset is None else offset + at, "nul_byte", excerpt(raw[max(0, at - 30) :]))
    return Document(text, row, span)


def checked(text: str, row: int, span: int, offset: int | None) -> Found:
    """The checks for a string that came out of JSON or Parquet: NUL characters, nothing at all."""
    if "\x00" in text:
        return Reject(span, row, offset, "nul_byte", excerpt(text[max(0, text.index("\x00") - 30) :]))
    if not text or text.isspace():
        return Reject(span, row, offset, "empty_text", "")
    return Document(text, row, span)
