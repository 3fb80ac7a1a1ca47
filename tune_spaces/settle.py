"""A benchmark's space or grid joined with what the user wrote, in the plain forms of YAML.

In a space: a list is a choice, a number fixes the option, null takes it out of the search (then the task's recipe
holds), and `{loguniform: [least, most]}`, `{uniform: [least, most]}`, `{randint: [first, last + 1]}` and
`{choice: [...]}` are the domains of `ray.tune` of these names. In a grid: a list, a number, null.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pmlm_core.errors import ConfigError, near
from tune_spaces.base import Benchmark
from tune_spaces.checks import check_searchable

INTEGERS = frozenset({"batch_size", "num_train_epochs", "num_beams", "min_target_length", "no_repeat_ngram_size"})
"""Searchable options that are whole numbers; the others are fractions."""
NULLABLE = frozenset({"max_grad_norm"})
"""Searchable options to which null is a value."""
FORMS = ("loguniform", "uniform", "randint", "choice")


def settle_space(benchmark: Benchmark, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is searched, by option: a domain of `ray.tune`, or the value itself where it is fixed.

    It goes before the benchmark's `options`, for a user may search what the benchmark fixes.

    Args:
        overrides: the user's, by option; they go before the benchmark's. The benchmark's own space may have plain
            forms, too.

    Raises:
        ConfigError: the benchmark's space cannot be made, an option cannot be searched, a form is not known, or
            nothing is left to search.
    """
    from ray.tune.search.sample import Domain

    where = f"benchmark '{benchmark.name}', space"
    try:
        own = benchmark.space()
    except Exception as error:  # the user's own code
        raise ConfigError(f"{where}: making it failed: {type(error).__name__}: {error}") from error
    if not isinstance(own, Mapping):
        raise ConfigError(f"{where}: it makes {type(own).__name__}, not a dictionary of options")
    overrides = overrides or {}
    settled = {}
    for option, value in {**own, **overrides}.items():
        place = "space" if option in overrides else where
        check_searchable(option, place)
        if value is not None:
            settled[option] = _domain(option, value, f"{place}: {option}")
    if not any(isinstance(value, Domain) for value in settled.values()):
        raise ConfigError(f"{where}: nothing is left to search; give an option values, as {_example('learning_rate')}")
    if both := [option for option in own if option in benchmark.options]:
        raise ConfigError(f"{where}: {both[0]} stands in options, too; keep one of them")
    return settled


def settle_grid(benchmark: Benchmark, overrides: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
    """The values to try by option, each value once; the grid is their product.

    Raises:
        ConfigError: an option cannot be searched, or its values are none.
    """
    settled: dict[str, list[Any]] = {}
    overrides = overrides or {}
    for option, value in {**benchmark.paper_grid, **overrides}.items():
        place = "grid" if option in overrides else f"benchmark '{benchmark.name}', paper_grid"
        check_searchable(option, place)
        if value is None:
            continue
        place = f"{place}: {option}"
        if isinstance(value, Mapping):
            raise ConfigError(f"{place}: a grid has values, not ranges; write for example {_values_example(option)}")
        values = value if _is_list(value) else [value]
        settled[option] = list(dict.fromkeys(_numbers(option, values, place)))
    return settled


def ends(value: Any) -> list[Any]:
    """Values of a settled space at which to try whether the option allows them: the ends, or all of a choice.

    A domain that is a function, or has no end, has none.

    >>> ends(0.1)
    [0.1]
    """
    from ray.tune.search.sample import Categorical, Domain, Float, Integer

    if isinstance(value, Categorical):
        return list(value.categories)
    if isinstance(value, Float | Integer):
        last = value.upper - 1 if isinstance(value, Integer) else value.upper
        return [end for end in (value.lower, last) if end is not None and math.isfinite(end)]
    return [] if isinstance(value, Domain) else [value]


def _domain(option: str, value: Any, place: str) -> Any:
    from ray import tune
    from ray.tune.search.sample import Domain, Float

    if isinstance(value, Float) and option in INTEGERS:
        raise ConfigError(f"{place}: its domain draws fractions, but the option is a whole number; use tune.choice")
    if isinstance(value, Domain):
        return value
    if _is_list(value):
        return tune.choice(_numbers(option, value, place))
    if not isinstance(value, Mapping):
        return _number(option, value, place)
    if len(value) != 1 or next(iter(value)) not in FORMS:
        names = ", ".join(str(name) for name in value) or "nothing"
        hint = near(names, FORMS) if len(value) == 1 else ""
        raise ConfigError(
            f"{place}: {{{names}}} is no domain{hint}; write one of {', '.join(FORMS)}: {_example(option)}"
        )
    form, given = next(iter(value.items()))
    if not _is_list(given):
        raise ConfigError(f"{place}: {form} needs a list, not {given!r}; write for example {_example(option)}")
    if form == "choice":
        return tune.choice(_numbers(option, given, place))
    if (form == "randint") != (option in INTEGERS):
        kinds = "fractions, but the option is a whole number" if option in INTEGERS else "whole numbers only"
        raise ConfigError(f"{place}: {form} draws {kinds}; write for example {_example(option)}")
    if len(given) != 2 or None in given:
        raise ConfigError(f"{place}: {form} needs two numbers, not {list(given)}; write for example {_example(option)}")
    least, most = _numbers(option, given, place)
    if least >= most or (form == "loguniform" and least <= 0):
        above = " above 0" if form == "loguniform" else ""
        raise ConfigError(
            f"{place}: {form} needs a lower end{above} and then a higher one, not [{least}, {most}]; "
            f"write for example {_example(option)}"
        )
    return getattr(tune, form)(least, most)


def _numbers(option: str, values: Sequence[Any], place: str) -> list[Any]:
    if not values:
        raise ConfigError(f"{place}: there is no value in the list; write for example {_values_example(option)}")
    return [None if value is None and option in NULLABLE else _number(option, value, place) for value in values]


def _number(option: str, value: Any, place: str) -> int | float:
    """A value in the option's type. YAML reads 1e-4, without a dot, as text, which is taken as the number it says."""
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (option in INTEGERS and number != int(number)):
            raise ValueError
    except (TypeError, ValueError):
        kind = "whole number" if option in INTEGERS else "number"
        raise ConfigError(f"{place}: {value!r} is no {kind}; write for example {_values_example(option)}") from None
    return int(number) if option in INTEGERS else number


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _values_example(option: str) -> str:
    if option in INTEGERS:
        return f"{option}: [{'16, 32' if option == 'batch_size' else '2, 4'}]"
    return f"{option}: {'[1.0e-5, 1.0e-4]' if option == 'learning_rate' else '[0.01, 0.1]'}"


def _example(option: str) -> str:
    if option in INTEGERS:
        return _values_example(option)
    if option == "learning_rate":
        return f"{option}: {{loguniform: [1.0e-5, 1.0e-3]}}"
    return f"{option}: {{uniform: [0.0, 0.2]}}"
