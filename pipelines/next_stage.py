"""The command of the next stage, such that it goes on with what this one was told."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from pipelines import options
from pipelines.cli import COMMANDS
from pipelines.inner_command import class_of
from pipelines.output_folder import beside


def next_stage(
    stage: str, place: str, recipe: str | None, this: str, config: Any, handed: Mapping[str, str]
) -> tuple[str, bool]:
    """`pmlm STAGE` with the recipe, if that has such a section, and with what was said otherwise on the command line.

    Args:
        place: name of its output folder beside this stage's, where the recipe's is for another input or not said.
        this: the stage that has ended, with `config`.
        handed: option of the next stage -> option of this one, which it takes over.

    Returns:
        The command, and whether the recipe has a section for it.
    """
    ours, theirs = _section(recipe, this) or {}, _section(recipe, stage)
    said = theirs or {}
    told: dict[str, Any] = {}
    for name, source in handed.items():
        value = getattr(config, source)
        known = value == said[name] or value == ours.get(source) if name in said else value == _default(stage, name)
        if not known:
            told[name] = value
    if "output_dir" not in said or any(source == "output_dir" and name in told for name, source in handed.items()):
        told["output_dir"] = beside(config.output_dir, place)
    words = ["pmlm", stage]
    if theirs is not None and recipe is not None:
        words += ["--config", recipe]
    for name, value in told.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words), theirs is not None


def _section(recipe: str | None, stage: str) -> dict[str, Any] | None:
    names = tuple(COMMANDS)
    if recipe is None or stage not in options.sections(recipe, names):
        return None
    return options.section(recipe, stage, class_of(stage), names)


def _default(stage: str, name: str) -> Any:
    found = next(each for each in dataclasses.fields(class_of(stage)) if each.name == name)
    return found.default
