"""What is sent with a job: the code of a folder without its data, and the files that the command names.

Ray's own packing would do, but it tells a size only when everything was packed and sent; here it is known before.
"""

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from pipelines.quantities import size_text
from pmlm_core.errors import ConfigError

LIMIT = 100 << 20
"""Bytes that Ray's dashboard takes in one request."""
_MOST_FILES = 50_000
_IGNORE_FILES = (".gitignore", ".rayignore")

_SECRET = (
    *(".env", ".env.*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "auth_token", ".netrc"),
    *(".ssh/", ".aws/", ".ray/"),
)
_LEFT_OUT = (
    *_SECRET,
    *(".git", ".venv/", "venv/", "__pycache__/", "*.pyc", "node_modules/", "*.egg-info/", ".*_cache/", ".hypothesis/"),
    *("outputs/", "mlruns/", "mlartifacts/", "mlflow.db*", ".mlflow.db.lock", "/data/", "/glue_data/"),
    *("*.arrow", "*.parquet", "*.zst", "*.gz", "*.safetensors", "*.bin", "*.pt", "*.ckpt", "*.onnx"),
)


@dataclass(frozen=True)
class Package:
    """Files below `root`: path in it, with `/`, and bytes."""

    root: Path
    files: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.files)

    def check(self) -> None:
        """Refuse more than a cluster takes.

        Raises:
            ConfigError: it is too large; the message names what is largest.
        """
        if self.size <= LIMIT and len(self.files) <= _MOST_FILES:
            return
        more = "more than " if len(self.files) > _MOST_FILES else ""
        largest = ", ".join(f"{name} ({size_text(size)})" for name, size in self.largest(5))
        raise ConfigError(
            f"{self.root} has {more}{size_text(self.size)} in {more}{len(self.files):,} files to send, and a cluster "
            f"takes {LIMIT >> 20} MiB. The largest: {largest}. Name what is no code in .rayignore or with --exclude, "
            "and have data where the nodes see it (s3://, gs://, a shared folder)"
        )

    def largest(self, number: int) -> list[tuple[str, int]]:
        """The largest files and folders, two levels deep."""
        sizes: Counter[str] = Counter()
        for name, size in self.files:
            parts = name.split("/")
            sizes["/".join(parts[:2]) + "/" * (len(parts) > 2)] += size
        return sizes.most_common(number)

    def write(self, path: Path) -> None:
        """Write them as a zip file, the same bytes for the same files, so that Ray knows what it has already."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, _ in self.files:
                file = self.root / name
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.external_attr = (stat.S_IFREG | (0o755 if os.access(file, os.X_OK) else 0o644)) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.read_bytes())

    def __str__(self) -> str:
        return f"{len(self.files):,} files, {size_text(self.size)}, of {self.root}"


def collect(root: Path, exclude: Sequence[str] = (), named: Iterable[str] = ()) -> Package:
    """What of `root` goes with a job.

    Args:
        exclude: patterns of .gitignore, in addition to the files of that name, .rayignore, and what is usually data.
        named: files and folders, relative to `root`, that go whatever the patterns say, but for keys and tokens.

    Raises:
        ConfigError: a pattern, or a folder that none leaves out, cannot be read; a key or token is named itself.
    """
    own = _spec([*_LEFT_OUT, *exclude], "exclude")
    try:
        found = dict(_walk(root, "", [("", own)], _MOST_FILES))
    except PermissionError as error:
        raise ConfigError(
            f"{error.filename} cannot be read, so it cannot be sent; name it in .rayignore or with --exclude"
        ) from None
    for name in named:
        found |= _named(root, name)
    return Package(root, tuple(sorted(found.items())))


def _named(root: Path, name: str) -> dict[str, int]:
    """A file or folder that the command reads, data too."""
    secret, path = _spec([*_SECRET, ".git"], "secret"), root / name
    if path.is_file() and secret.match_file(name):
        raise ConfigError(f"{name} has the name of a key or token, and those are not sent; rename it if it is none")
    files = {each.relative_to(root).as_posix(): each for each in (path.rglob("*") if path.is_dir() else [path])}
    return {each: file.stat().st_size for each, file in files.items() if file.is_file() and not secret.match_file(each)}


def _walk(root: Path, inside: str, specs: list[tuple[str, GitIgnoreSpec]], most: int) -> Iterator[tuple[str, int]]:
    """Files below a folder that no pattern leaves out, not many more than `most`; links to folders are not entered."""
    for name in _IGNORE_FILES:
        file = root / inside / name
        if file.is_file():
            specs = [*specs, (inside, _spec(file.read_text(errors="replace").splitlines(), str(file)))]
    with os.scandir(root / inside) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            folder = entry.is_dir(follow_symlinks=False)
            path = f"{inside}{entry.name}" + "/" * folder
            if any(spec.match_file(path.removeprefix(base)) for base, spec in specs):
                continue
            if not folder:
                if entry.is_file():
                    yield path, entry.stat().st_size
                    most -= 1
            else:
                for file_size in _walk(root, path, specs, most):
                    yield file_size
                    most -= 1
            if most < 0:
                return


def _spec(lines: Sequence[str], where: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
