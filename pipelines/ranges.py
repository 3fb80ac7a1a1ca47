"""Numbers among the options of a command, held against what they may be."""

from collections.abc import Iterable
from typing import Any

from pmlm_core.errors import ConfigError


def check_numbers(
    config: Any,
    names: Iterable[str],
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Refuse a number that is out of range; one that is left out (None) is not.

    Args:
        hint: end of the sentence.

    Raises:
        ConfigError: with the option, what it may be, and what it is.
    """
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        # So that what is no number (NaN) is in no range.
        inside = (
            (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )
        if not inside:
            raise ConfigError(f"{name} must be {_range(least, above, most, below)}, not {value}{hint}")


def _range(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """The range in words.

    >>> _range(1, None, None, None), _range(None, 0, None, None), _range(0, None, None, 1), _range(None, 0, 1, None)
    ('1 or more', 'above 0', 'from 0 to below 1', 'above 0 and at most 1')
    >>> _range(5, None, 65_535, None)
    'from 5 to 65,535'
    """
    if most is None and below is None:
        return f"above {above:,}" if above is not None else f"{least:,} or more"
    if above is not None:
        return f"above {above:,} and " + (f"at most {most:,}" if most is not None else f"below {below:,}")
    return f"from {least:,} to " + (f"{most:,}" if most is not None else f"below {below:,}")
