"""METEOR 1.5 (Denkowski and Lavie, 2014) for English, as question generation papers use it.

The official Java program, which the package pycocoevalcap carries, with the options of coco-caption (`-l en -norm`):
exact words, stems, synonyms and paraphrases; of several references the best counts. It reads the tokens of `tokens.py`.
The program is driven here, not by pycocoevalcap's wrapper, so that it always ends and says why it failed.
"""

import importlib.util
import logging
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pmlm_core.tasks.scores.pairs import check_references
from pmlm_core.tasks.scores.tokens import question_tokens

logger = logging.getLogger(__name__)

OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
TIMEOUT = 1800.0
"""Seconds after which the program is taken to hang; some 10,000 questions take a minute or two."""


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """METEOR of the corpus in percent; None, with the reason logged, if it could not be computed.

    Raises:
        DataError: no examples, not as many lists of references as predictions, or an empty one.
    """
    check_references(predictions, references)
    if reason := why_not():
        logger.warning("METEOR is left out: %s", reason)
        return None
    lines = [
        " ||| ".join(["SCORE", *(_line(each) for each in texts), _line(text)])
        for text, texts in zip(predictions, references, strict=True)
    ]
    try:
        with _Program.started() as program:
            counts = [program.ask(line) for line in lines]
            program.write(" ||| ".join(["EVAL", *counts]))
            figures = [float(program.read()) for _ in range(len(counts) + 1)]
    except (OSError, ValueError) as error:
        logger.warning("METEOR is left out: %s", error)
        return None
    return 100 * figures[-1]


def why_not() -> str | None:
    """Why METEOR cannot be computed here, or None if it can."""
    if jar() is None:
        return "the package pycocoevalcap is not installed; pip install 'pmlm[meteor]'"
    if shutil.which("java") is None:
        return "Java is not installed (no 'java' on the PATH); it needs Java 8 or newer"
    return None


def jar() -> Path | None:
    """The program's file, if it is there."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = (Path(folder) / "meteor" / "meteor-1.5.jar" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _line(text: str) -> str:
    """Tokens on one line; "|||", which the program takes for a border, falls apart into marks."""
    return " ".join(question_tokens(text))


class _Program:
    """The running program: a line in, a line or more out."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self._process = process
        self._errors = errors

    @classmethod
    @contextmanager
    def started(cls) -> "Iterator[_Program]":
        """Start it; when the block is left, it has ended."""
        command = ["java", "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar()), *OPTIONS]
        with tempfile.TemporaryDirectory() as folder:
            errors = Path(folder) / "errors.txt"
            with errors.open("wb") as stream:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, encoding="utf-8"
                )
            hanging = threading.Timer(TIMEOUT, process.kill)
            hanging.daemon = True
            hanging.start()
            try:
                yield cls(process, errors)
            finally:
                hanging.cancel()
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    # What was still to be written is of no use to an ended program.
                    with suppress(BrokenPipeError):
                        pipe.close()  # type: ignore[union-attr]

    def ask(self, line: str) -> str:
        self.write(line)
        return self.read()

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return line.strip()

    def _failure(self) -> OSError:
        self._process.kill()
        self._process.wait()
        said = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return OSError(f"its Java program ended early (status {self._process.returncode}): {' '.join(said[:3])}")
