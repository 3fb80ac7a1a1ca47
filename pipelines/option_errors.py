"""What a parser says about an option, in a user's words."""

import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from pmlm_core.errors import ConfigError, near

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def option_error(where: str, error: Exception, kinds: Mapping[str, Any], help_command: str) -> ConfigError:
    """The error of an option that lacks or has a wrong value.

    Args:
        where: the command or the section of a recipe.
        kinds: type of each option.

    >>> said = ValueError('Parser key "rate": Expected a float. Got value: fast')
    >>> str(option_error("pmlm x", said, {"rate": float}, "pmlm x"))
    'pmlm x: --rate must be a number, not "fast" (all options: pmlm x --help)'
    """
    text = " ".join(str(error).split())
    hint = f"(all options: {help_command} --help)"
    if lacking := re.search(r"following arguments are required: ([\w, ]+)", text):
        options = ", ".join(f"--{name}" for name in lacking[1].split(", "))
        return ConfigError(f"{where} needs {options} {hint}")
    named = re.search(r'Parser key "(\w+)"', text)
    if named is None or named[1] not in kinds:
        return ConfigError(f"{where}: {text} {hint}")
    given = re.search(r"(?:Given|Got) value: (.*)$", text)
    shown = f', not "{given[1].strip()}"{near(given[1].strip(), _choices(kinds[named[1]]))}' if given else ""
    return ConfigError(f"{where}: --{named[1]} must be {in_words(kinds[named[1]])}{shown} {hint}")


def _choices(kind: Any) -> list[str]:
    """The words that a type allows; none where it is not a choice of words."""
    if typing.get_origin(kind) is typing.Literal:
        return [word for word in typing.get_args(kind) if isinstance(word, str)]
    return [word for part in typing.get_args(kind) for word in _choices(part)]


def in_words(kind: Any) -> str:
    """What values a type has.

    >>> in_words(int | None), in_words(typing.Literal["fp32", "bf16"]), in_words(list[int])
    ('a whole number or null', 'one of fp32, bf16', 'a list, each a whole number')
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else in_words(part) for part in parts)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind is list or origin is list:
        return f"a list, each {in_words(parts[0])}" if parts else "a list"
    if kind is dict or origin is dict:
        return 'a mapping ({"name": value})'
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
