"""The command of the next stage, such that it goes on with what this one was told."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from pipelines import options
from pipelines.cli import COMMANDS
from pipelines.inner_command import class_of
from pipelines.output_folder import beside
from pmlm_core import storage


def in_recipe(recipe: str | None, stage: str) -> bool:
    """Whether the recipe says anything of a stage.

    Raises:
        ConfigError: it cannot be read.
    """
    return recipe is not None and bool(options.sections(recipe, tuple(COMMANDS)).get(stage))


def next_stage(stage: str, place: str, recipe: str | None, this: str, config: Any, handed: Mapping[str, str]) -> str:
    """`pmlm STAGE` with the recipe, if that has such a section, and with what was said otherwise on the command line.

    Args:
        place: name of its output folder beside this stage's, where the recipe's is for another input or not said.
        this: the stage that has ended, with `config`.
        handed: option of the next stage -> option of this one, which it takes over.

    Raises:
        ConfigError: the recipe cannot be read by now, or its section for the next stage is wrong.
    """
    ours, theirs = _section(recipe, this), _section(recipe, stage)
    told: dict[str, Any] = {}
    for name, source in handed.items():
        value = getattr(config, source)
        if name in theirs:  # it stands, unless the command line took this stage away from the recipe
            known = _same(value, theirs[name]) or _same(value, ours.get(source, _default(this, source)))
        else:
            known = value == _default(stage, name)
        if not known:
            told[name] = value
    elsewhere = any(source == "output_dir" and name in told for name, source in handed.items())
    copied = storage.is_remote(config.output_dir) and theirs.get("upload_dir") is not None
    if "output_dir" not in theirs:
        told["output_dir"] = f"outputs/{place}" if copied else beside(config.output_dir, place)
    elif elsewhere and not copied:  # beside upload_dir there can be no output_dir in a store
        told["output_dir"] = beside(config.output_dir, place)
    words = ["pmlm", stage]
    if theirs and recipe is not None:
        words += ["--config", recipe]
    for name, value in told.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _section(recipe: str | None, stage: str) -> dict[str, Any]:
    if recipe is None or not in_recipe(recipe, stage):
        return {}
    return options.section(recipe, stage, class_of(stage), tuple(COMMANDS))


def _default(stage: str, name: str) -> Any:
    found = next(each for each in dataclasses.fields(class_of(stage)) if each.name == name)
    return found.default


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same; paths and names of inputs may be spelled in several ways."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return one == other or storage.normalise(one) == storage.normalise(other)
    return bool(one == other)
