"""A command that another one is about, given after `--` as it would be given by itself."""

import importlib
from collections.abc import Collection, Sequence
from typing import Any

from pipelines import options
from pipelines.cli import COMMANDS
from pmlm_core.errors import ConfigError, near


def words_of(command: Sequence[str]) -> list[str]:
    """Stage and options, without the `pmlm` in front that people write.

    >>> words_of(["pmlm", "pretrain", "--seed", "1"])
    ['pretrain', '--seed', '1']
    """
    return list(command[1:] if command and command[0] == "pmlm" else command)


def parse(command: Sequence[str], *, purpose: str, never: Collection[str]) -> tuple[str, options.Request]:
    """The stage and what it would run with.

    Args:
        purpose: for messages, what the command is named for: "is no command to ...".
        never: commands that cannot be named.

    Raises:
        ConfigError: there is no such command, or its options or recipe are wrong.
    """
    stage, *rest = words_of(command) or [""]
    if stage not in COMMANDS or stage in never:
        known = [name for name in COMMANDS if name not in never]
        hint = near(stage, known) or ";"
        raise ConfigError(f"'{stage}' after -- is no command to {purpose}{hint} commands: {', '.join(known)}")
    return stage, options.parse(stage, class_of(stage), COMMANDS[stage].summary, rest, tuple(COMMANDS))


def class_of(stage: str) -> Any:
    """The configuration class of a command."""
    return getattr(importlib.import_module(f"pipelines.{stage}.config"), COMMANDS[stage].config_class)
