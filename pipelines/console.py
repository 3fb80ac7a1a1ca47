"""What a stage says to the person who started it: what it made, where it lies, and the command that comes next."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console

_console = Console(stderr=False, soft_wrap=True, highlight=False, emoji=False)
_about = ContextVar("about", default="")


def console() -> Console:
    """The one console, for progress bars and tables."""
    return _console


@contextmanager
def about(name: str) -> Iterator[None]:
    """Let what is said in here by this thread begin with what it is of."""
    before = _about.set(f"{name}: ")
    try:
        yield
    finally:
        _about.reset(before)


def say(text: str) -> None:
    """Print one line of progress."""
    _console.print(f"{_about.get()}{text}", markup=False)


def warn(text: str) -> None:
    """Print something the user should know although the run goes on."""
    _console.print(f"warning: {_about.get()}{text}", style="yellow", markup=False)


def counted(number: int, thing: str) -> str:
    """How many there are, in words.

    >>> counted(1, "piece"), counted(1200, "piece")
    ('1 piece', '1,200 pieces')
    """
    return f"{number:,} {thing}{'s' * (number != 1)}"


def made(what: str, path: str) -> None:
    """Print what was made and where it lies."""
    _console.print(f"made {what}: {path}", style="green", markup=False)


def next_command(command: str) -> None:
    """Print the command that comes next."""
    _console.print(f"next: {command}", style="cyan", markup=False)


def next_predict(model: str) -> None:
    """Say how a fine-tuned model is used."""
    next_command(f"pmlm predict --model {shlex.quote(model)} --inputs YOUR_FILES --output_dir outputs/predictions/NAME")
