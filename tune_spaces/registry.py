"""Benchmarks by name, or by the path of a file of one's own.

Every module of this package that defines `BENCHMARK` is one: adding a benchmark is adding its file.
"""

import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pmlm_core.errors import ConfigError, near
from tune_spaces.base import Benchmark
from tune_spaces.checks import check_benchmark
from tune_spaces.settle import ends, settle_grid, settle_space

__all__ = ["BENCHMARKS", "check_named", "ends", "get_benchmark", "settle_grid", "settle_space"]

_NOT_LISTED = ("registry", "template")
_OWN = "for one of your own, copy tune_spaces/template.py and give the path of the copy"


def _shipped() -> dict[str, tuple[Benchmark, str]]:
    """Each benchmark of this folder and its file, by name, in the order of the files' names."""
    found: dict[str, tuple[Benchmark, str]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name in _NOT_LISTED:
            continue
        benchmark = getattr(importlib.import_module(f"tune_spaces.{module.name}"), "BENCHMARK", None)
        if benchmark is None:
            continue
        file = f"tune_spaces/{module.name}.py"
        if benchmark.name in found:
            raise ConfigError(f"{file} and {found[benchmark.name][1]} both call their benchmark '{benchmark.name}'")
        found[benchmark.name] = (benchmark, file)
    return found


_SHIPPED = _shipped()
BENCHMARKS = tuple(_SHIPPED)


def check_named(name_or_path: str) -> None:
    """Refuse a name that is none of `BENCHMARKS`, or the path of a file that is not there; none is run.

    Raises:
        ConfigError: it is.
    """
    if not _is_path(name_or_path) and name_or_path not in _SHIPPED:
        hint = "; write several with spaces between;" if "," in name_or_path else near(name_or_path, BENCHMARKS) or ";"
        raise ConfigError(
            f"benchmark '{name_or_path}' is not known{hint} benchmarks are {', '.join(BENCHMARKS)}; {_OWN}"
        )
    if _is_path(name_or_path) and not Path(name_or_path).expanduser().is_file():
        raise ConfigError(f"benchmark {name_or_path}: there is no such file; {_OWN}")


def get_benchmark(name_or_path: str, option_names: Collection[str] | None = None) -> Benchmark:
    """The benchmark of a name, or of a Python file that defines `BENCHMARK`.

    Args:
        name_or_path: one of `BENCHMARKS`; a text with '/' or with '.py' at its end is a path.
        option_names: options of `pmlm finetune` that a benchmark may set, against which its `options` are held; None
            leaves them unchecked.

    Raises:
        ConfigError: no such benchmark or file, or something in it is wrong (`checks`). What its space makes is
            checked by `settle_space`.
    """
    check_named(name_or_path)
    if _is_path(name_or_path):
        return check_benchmark(_from_file(Path(name_or_path).expanduser()), name_or_path, option_names)
    benchmark, file = _SHIPPED[name_or_path]
    return check_benchmark(benchmark, file, option_names)


def _is_path(name_or_path: str) -> bool:
    return name_or_path.endswith(".py") or "/" in name_or_path


def _from_file(path: Path) -> Any:
    """`BENCHMARK` of a file. Its module is not entered into `sys.modules`, so that its functions travel by value."""
    path = path.absolute()
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"benchmark {path}: it is no Python file (.py); {_OWN}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else path
        raise ConfigError(f"benchmark {where}: {type(error).__name__}: {error}") from error
    if not hasattr(module, "BENCHMARK"):
        raise ConfigError(f"benchmark {path}: it defines no BENCHMARK; {_OWN}")
    return module.BENCHMARK
