"""From values to places: linear, logarithmic and stepwise scales, with ticks at round numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.compare.names import shown

_FEW = 4  # so many different numbers stand side by side rather than on a line
_LOG_FROM = 10  # largest over smallest from which a line is logarithmic
_CHARACTER = 6.6  # width of a digit in the labels, in units of the picture


@dataclass(frozen=True)
class Scale:
    """One axis.

    Attributes:
        start, end: places of its ends in the picture; `start` may be the larger one.
        low, high: values at its ends; of a logarithmic one their logarithms.
        steps: of a stepwise axis, its values as text in order; else empty.
        ticks: (place, label).
    """

    start: float
    end: float
    low: float
    high: float
    kind: str
    steps: tuple[str, ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()

    def at(self, value: Any) -> float:
        """Place of a value."""
        if self.kind == "steps":
            share = (self.steps.index(shown(value)) + 0.5) / len(self.steps)
        else:
            known = math.log10(value) if self.kind == "log" else float(value)
            share = (known - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def fitting(values: Sequence[Any], start: float, end: float) -> Scale:
    """The scale that suits an option's values: few or no numbers stepwise, those that span decades logarithmic."""
    different = {shown(value): value for value in values}
    numbers = all(_is_number(value) for value in values)
    if not numbers or len(different) == 1 or (len(different) <= _FEW and not any(_is_drawn(each) for each in values)):
        ordered = sorted(different, key=lambda text: (not _is_number(different[text]), _order(different[text]), text))
        steps = Scale(start, end, 0.0, 1.0, "steps", tuple(ordered))
        return _with_ticks(steps, [(different[text], text) for text in ordered])
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_FROM:
        return logarithmic(low, high, start, end)
    return linear(values, start, end)


def linear(values: Iterable[float], start: float, end: float, *, about: int = 5) -> Scale:
    """A scale around the values, its ends a little outside of them; ticks at multiples of 1, 2 or 5."""
    low, high = _range(list(values))
    step = nice_step((high - low) / about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [(number * step, f"{number * step:,.{digits}f}") for number in range(first, last + 1)]
    return _with_ticks(Scale(start, end, low, high, "linear"), ticks)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """A scale of logarithms; ticks at powers of ten, and at 2 and 5 times them where there are few."""
    ends = math.log10(low), math.log10(high)
    margin = 0.06 * (ends[1] - ends[0]) or 0.1
    ends = ends[0] - margin, ends[1] + margin
    factors = (1,) if ends[1] - ends[0] > 2.5 else (1, 2, 5)
    powers = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    ticks = [(value, _short(value)) for value in values if ends[0] <= math.log10(value) <= ends[1]]
    return _with_ticks(Scale(start, end, *ends, "log"), ticks)


def nice_step(rough: float) -> float:
    """The round number next above: 1, 2 or 5 times a power of ten.

    >>> nice_step(0.7), nice_step(3), nice_step(12)
    (1.0, 5.0, 20.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def thinned(ticks: Sequence[tuple[float, str]], *, along: bool = True) -> list[tuple[float, str]]:
    """Ticks without those whose labels would run into the one before; `along` the axis, or across it."""
    kept: list[tuple[float, str]] = []
    for place, label in sorted(ticks):
        if kept:
            need = (len(label) + len(kept[-1][1])) / 2 * _CHARACTER + 6 if along else 13.0
            if place - kept[-1][0] < need:
                continue
        kept.append((place, label))
    return kept


def _with_ticks(scale: Scale, ticks: Sequence[tuple[Any, str]]) -> Scale:
    placed = tuple((scale.at(value), label) for value, label in ticks)
    return Scale(scale.start, scale.end, scale.low, scale.high, scale.kind, scale.steps, placed)


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(0.5, abs(low) * 0.02)
    return low - margin, high + margin


def _short(value: float) -> str:
    if 1 <= value < 1e6:
        return f"{value:,.0f}"
    return shown(value) if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def _is_drawn(value: float) -> bool:
    """Whether a number comes from a range rather than from somebody's list: it has more than two digits.

    >>> _is_drawn(0.000674), _is_drawn(1.5e-5), _is_drawn(128)
    (True, False, False)
    """
    return isinstance(value, float) and value != float(f"{value:.1e}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0
