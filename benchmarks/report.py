"""The tables of a benchmark: shown in the terminal and, with `--save`, kept in `benchmarks/results/` with date, commit,
machine and command, so that every figure can be made again."""

import argparse
import datetime
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
_VERSIONS = ("torch", "transformers", "ray", "datasets", "sentencepiece", "tokenizers", "triton")


class Report:
    """One run of one benchmark.

    Args:
        name: of the result file, `<date>-<name>.md`.
        title: its heading.
        said: what has to be known to read the tables, in sentences.
    """

    def __init__(self, name: str, title: str, said: str) -> None:
        self._name, self._blocks = name, [f"# {title}", said]
        self._console = Console()
        self._title = title

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show a table now; the first column is a name, the others are figures."""
        shown = Table(title=title)
        for at, column in enumerate(columns):
            shown.add_column(column, justify="right" if at else "left")
        lines = [f"| {' | '.join(columns)} |", "|" + " --- |" + " ---: |" * (len(columns) - 1)]
        for row in rows:
            cells = [str(cell) for cell in row]
            shown.add_row(*cells)
            lines.append(f"| {' | '.join(cells)} |")
        self._console.print(shown)
        self._blocks += [f"**{title}**", "\n".join(lines)]

    def note(self, text: str) -> None:
        """Show a sentence, and keep it."""
        self._console.print(text)
        self._blocks.append(text)

    def finish(self, save: str | None) -> None:
        """Say how the figures were made, and unless `save` is None write the file, with `save` after its name."""
        made = f"Made with `{command()}` on {machine()}; commit {commit()}; {versions()}."
        self._blocks.append(made)
        if save is None:
            return
        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{datetime.date.today()}-{self._name}{f'-{save}' if save else ''}.md"
        path.write_text("\n\n".join(self._blocks) + "\n")
        self._console.print(f"saved: {path}")


def options(doc: str | None) -> argparse.ArgumentParser:
    """A command line with the module's text as help, and `--save`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--save",
        nargs="?",
        const="",
        metavar="SUFFIX",
        help="keep the tables in benchmarks/results/, under the date, the benchmark's name and this suffix",
    )
    return parser


def command() -> str:
    """The command that is running, as one would type it from the project's folder."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(HERE.parent) if script.is_relative_to(HERE.parent) else script
    return shlex.join(["python", str(shown), *sys.argv[1:]])


def machine() -> str:
    """Processor, cores and GPU."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags = ""
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        fields = {name.strip(): value.strip() for name, _, value in lines}
        model, flags = fields.get("model name", model), fields.get("flags", "")
    known = [
        label
        for flag, label in (("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX"), ("avx2", "AVX2"))
        if flag in flags.split()
    ]
    count = len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))) or 1
    return f"{count} cores of {model} ({', '.join(known) or 'no vector flags read'}){_gpu()}"


def _gpu() -> str:
    import torch

    return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"


def commit() -> str:
    """The commit, and whether tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{changed}"


def versions() -> str:
    """Python's version and those of the libraries that decide about speed."""
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", *found])
