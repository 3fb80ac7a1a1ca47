"""Errors meant for the user: a sentence that says what, where, and the way out. The command line prints them bare."""


def in_a_line(error: BaseException) -> str:
    """Another's error, whose message may be long, in a line.

    >>> in_a_line(RuntimeError("no such instruction\\nand more")), in_a_line(KeyError())
    ('RuntimeError: no such instruction', 'KeyError: no message')
    """
    return f"{type(error).__name__}: {[*str(error).strip().splitlines(), 'no message'][0]}"


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
