"""Errors meant for the user: a sentence that says what, where, and the way out. The command line prints them bare."""

import difflib
from collections.abc import Iterable


def in_a_line(error: BaseException) -> str:
    """Type and first line of the message of an error that is not ours.

    >>> in_a_line(RuntimeError("no such instruction\\nand more")), in_a_line(KeyError())
    ('RuntimeError: no such instruction', 'KeyError: no message')
    """
    return f"{type(error).__name__}: {[*str(error).strip().splitlines(), 'no message'][0]}"


def near(name: object, known: Iterable[str]) -> str:
    """What was probably meant, as a part of a sentence; empty if nothing is like it. Capitals make no difference.

    >>> near("learning_rat", ["learning_rate", "seed"]), near("zzz", ["seed"])
    ("; did you mean 'learning_rate'?", '')
    """
    by_letters = {word.casefold(): word for word in sorted(known)}
    close = difflib.get_close_matches(str(name).casefold(), by_letters, n=1)
    return f"; did you mean '{by_letters[close[0]]}'?" if close else ""


class PmlmError(Exception):
    """Base of every error a user can mend; its message is the whole explanation."""


class ConfigError(PmlmError, ValueError):
    """An option is unknown, out of range, or contradicts another."""


class DataError(PmlmError, ValueError):
    """An input file, a shard or a manifest cannot be used as asked."""


class CheckpointError(PmlmError, RuntimeError):
    """A checkpoint is missing, incomplete, damaged, or of another run."""


class TrainingError(PmlmError, RuntimeError):
    """Training cannot go on: a loss that is not finite, a worker that disagrees with the others."""


class NotFinite(TrainingError):
    """Loss or gradient is not finite. Every worker meets it at the same step, for both are sums over all of them.

    No checkpoint holds what follows from it. In memory, workers that saw finite numbers may have made the update by
    then, if the gradient was finite and the loss of another worker was not.
    """


class UnknownFormError(ConfigError, DataError):
    """A file's name does not tell its form: the command line has to tell it, or to name another file."""


class NotThereError(ConfigError, DataError, CheckpointError):
    """An option names a file, a folder or what should lie in one, and it is not there: the command line is wrong."""
