"""Taking values out of a row: texts, labels, numbers; `RowError` where a field does not hold one."""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pmlm_core.tasks.rows import RowError


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """The text in a field, as it stands.

    Raises:
        RowError: missing, not text, or not UTF-8.
    """
    value = fields.get(name)
    if value is None:
        raise RowError("missing field", f"field '{name}' is missing")
    if not isinstance(value, str):
        raise RowError("not text", f"field '{name}' holds {_kind(value)}, not text")
    return checked(value, f"field '{name}'")


def checked(text: str, where: str) -> str:
    """Give `text` back if it is sound Unicode; bytes that are not UTF-8 were read as lone surrogates."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            odd = ord(text[error.start])
            shown = f"byte 0x{odd - 0xDC00:02x}" if 0xDC80 <= odd <= 0xDCFF else f"half a surrogate pair, U+{odd:04X}"
            detail = f"{where} is not UTF-8: {shown} at character {error.start}"
            raise RowError("invalid UTF-8", detail) from None
    return text


def text_or_tokens(value: Any, where: str) -> str:
    """A text, or a list of tokens joined by spaces; pieces of WordPiece ("##") go on the word before them.

    >>> text_or_tokens(["the", "una", "##ffa", "##ble"], "field 'src'")
    'the unaffable'
    """
    if isinstance(value, list | tuple) and all(isinstance(token, str) for token in value):
        value = re.sub(r" ##(?=\S)", "", " ".join(value))  # not a token "##" of its own
    if not isinstance(value, str):
        raise RowError("not text", f"{where} holds {_kind(value)}, neither text nor a list of tokens")
    return checked(value, where)


def label_of(fields: Mapping[str, Any], name: str, labels: Sequence[str], *, by_index: bool = False) -> str | None:
    """One of `labels`; None where the field is missing or empty.

    Args:
        by_index: integers are places in `labels`, -1 for none (data sets of the hub).

    Raises:
        RowError: another value.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    if by_index and isinstance(value, int) and not isinstance(value, bool):
        if value == -1:
            return None
        if 0 <= value < len(labels):
            return labels[value]
    text = label_text(value, f"field '{name}'")
    if text in labels:
        return text
    shown = checked(text, f"field '{name}'")[:80]
    known = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
    raise RowError("unknown label", f"field '{name}' holds '{shown}'; labels are {known}")


def label_text(value: Any, where: str) -> str:
    """A label (or an id) as text: 1 and 1.0 are "1", true is "true".

    Raises:
        RowError: it is several values, as of a data set with several labels a row.
    """
    if isinstance(value, list | tuple | dict):
        raise RowError("not one value", f"{where} holds a {_kind(value)} ({value!r:.60}); text or a number is needed")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def number_of(fields: Mapping[str, Any], name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    """A finite number from `low` to `high`; None where the field is missing or empty.

    Raises:
        RowError: something else.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        is_number = isinstance(value, str | int | float | Decimal) and not isinstance(value, bool)
        number = float(value) if is_number else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RowError("invalid number", f"field '{name}' holds {value!r:.80}, not a number")
    if not low <= number <= high:
        raise RowError("number out of range", f"field '{name}' holds {value!r:.80}; it runs from {low:g} to {high:g}")
    return number


def required(value: Any, name: str) -> Any:
    """Give `value` back, or say that the row lacks its label."""
    if value is None:
        raise RowError("missing label", f"field '{name}' holds no label")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
