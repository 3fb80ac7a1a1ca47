"""The forms raw text comes in, and how a file's name tells its form and its compression."""

from dataclasses import dataclass

from pmlm_core.errors import ConfigError, DataError, UnknownFormError

KINDS = {
    "auto": "by the ending of each file's name",
    "text_lines": "plain text, a document a line",
    "text_blocks": "plain text, documents separated by blank lines",
    "text_files": "plain text, a document a file",
    "jsonl": "JSON lines, the text in one field",
    "parquet": "Parquet, the text in one column",
    "wikitext": "the WikiText form: an article begins with a line ' = Title = '",
}
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
# Read as they are, these would give garbage as text.
_UNREAD_PACKINGS = (
    ".xz",
    ".bz2",
    ".lz4",
    ".lzma",
    ".lzo",
    ".br",
    ".z",
    ".snappy",
    ".zip",
    ".7z",
    ".rar",
    ".tar",
    ".tgz",
)
_BY_ENDING = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tokens": "wikitext",
}
# Plain text does not say where a document ends; guessing wrong would silently make every wrapped line a document.
_AMBIGUOUS = (".txt", ".text")


@dataclass(frozen=True)
class InputFormat:
    """How to read the input.

    Attributes:
        kind: one of `KINDS`.
        text_field: field (JSON lines) or column (Parquet) that holds the text.
        max_document_bytes: a longer document is quarantined rather than held in memory.
    """

    kind: str = "auto"
    text_field: str = "text"
    max_document_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"input format '{self.kind}' is unknown; formats: {', '.join(KINDS)}")
        if not self.text_field:
            raise ConfigError("text_field is empty; it names the field or column that holds the text")
        if self.max_document_bytes < 1:
            raise ConfigError(f"max_document_bytes is {self.max_document_bytes}; it must be at least 1")


def compression_of(name: str) -> str | None:
    """Compression by the last ending.

    >>> compression_of("books.jsonl.zst"), compression_of("books.jsonl")
    ('zstd', None)
    """
    return next((codec for ending, codec in COMPRESSIONS.items() if name.lower().endswith(ending)), None)


def unread_packing(name: str) -> str:
    """The ending of a name that says it is packed in a way that is not read here; "" for all others.

    >>> unread_packing("a.jsonl.xz"), unread_packing("books.tar.gz"), unread_packing("a.jsonl.gz")
    ('.xz', '.tar', '')
    """
    return next((ending for ending in _UNREAD_PACKINGS if _stem(name).endswith(ending)), "")


def tells_a_form(name: str) -> bool:
    """Whether a name ends like a file of text, whatever `--input_format` says.

    >>> tells_a_form("_part.jsonl.gz"), tells_a_form("_SUCCESS")
    (True, False)
    """
    return _stem(name).endswith((*_BY_ENDING, *_AMBIGUOUS))


def is_plain_text(name: str) -> bool:
    """Whether the name says plain text, whose form `auto` cannot tell.

    >>> is_plain_text("README.txt.gz"), is_plain_text("a.jsonl")
    (True, False)
    """
    return _stem(name).endswith(_AMBIGUOUS)


def _stem(name: str) -> str:
    stem = name.lower()
    for ending in COMPRESSIONS:
        stem = stem.removesuffix(ending)
    return stem


def kind_of(name: str, wanted: InputFormat) -> str | None:
    """The form of a file by its name, or None where neither the name nor `wanted` tells.

    Raises:
        UnknownFormError: a plain text file under `auto`.
        DataError: a compressed Parquet file.

    >>> kind_of("a.jsonl.gz", InputFormat())
    'jsonl'
    """
    stem = _stem(name)
    kind = wanted.kind if wanted.kind != "auto" else None
    if kind is None:
        if is_plain_text(name):
            raise UnknownFormError(
                f"{name}: a plain text file does not say where a document ends; give --input_format text_lines "
                "(a document a line), text_blocks (blank lines between documents) or text_files (a document a file); "
                "all input is then read so"
            )
        kind = next((form for ending, form in _BY_ENDING.items() if stem.endswith(ending)), None)
    if kind == "parquet" and stem != name.lower():
        raise DataError(f"{name}: Parquet is compressed inside; unpack the file first")
    return kind
