"""The folder of a run: what the run is (`run.json`), what happened to it (`events.jsonl`), its checkpoints and figures.

OUTPUT_DIR/RUN_NAME/
    run.json          the configuration and the blocks it was started with; a changed one is refused
    checkpoints/      see pmlm_core/training/checkpoint.py
    metrics.jsonl     the journal, see pipelines/tracking/journal.py
    events.jsonl      checkpoints, resumptions, warnings: written by the workers, told by the driver
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.pretrain.config import PretrainConfig
from pmlm_core.errors import CheckpointError, ConfigError

RUN_FILE, EVENTS_FILE, CHECKPOINTS = "run.json", "events.jsonl", "checkpoints"


@dataclass(frozen=True)
class DataIdentity:
    """Which blocks, and which tokenizer made them."""

    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int
    max_length: int


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> Path:
        return self.path / RUN_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def failure_of(self, attempt: str) -> Path:
        """Where a worker of this attempt leaves the error that no restart would mend."""
        return self.path / f"failure-{attempt}.json"


def open_run(config: PretrainConfig, data: DataIdentity) -> tuple[RunDir, bool]:
    """Find or make the folder of the run that `config` on these blocks is; also says whether it was there before.

    Raises:
        ConfigError: a run of that name was started with other options, or something else lies in its folder.
        CheckpointError: it was started on other blocks.
    """
    path = Path(config.output_dir).absolute() / config.name_for(data.fingerprint)
    record = path / RUN_FILE
    if record.exists():
        check_same_run(path, config, data)
        return RunDir(path), True
    if path.exists() and any(not left.name.startswith(f".{RUN_FILE}-") for left in path.iterdir()):
        raise ConfigError(f"{path} is not empty and holds no {RUN_FILE}: choose another run_name, or remove the folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        content = {
            "config": asdict(config),
            "deciding": config.deciding(),
            "data": asdict(data),
            "started": time.time(),
        }
        temporary = path / f".{RUN_FILE}-{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(record)
        _sweep(path)
    except OSError as error:
        raise ConfigError(f"output_dir: {path} cannot be made: {error.strerror}") from None
    return RunDir(path), False


def _sweep(path: Path) -> None:
    """Remove what was left of a start that was killed before it had written its record."""
    for left in path.glob(f".{RUN_FILE}-*"):
        left.unlink(missing_ok=True)


def check_unless_new(config: PretrainConfig, data: DataIdentity) -> None:
    """Refuse as `open_run` would, but make nothing."""
    path = Path(config.output_dir).absolute() / config.name_for(data.fingerprint)
    if (path / RUN_FILE).exists():
        check_same_run(path, config, data)


def check_same_run(path: Path, config: PretrainConfig, data: DataIdentity) -> None:
    """Refuse a configuration, or blocks, that are not those the run in `path` was started with."""
    try:
        known = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        before, blocks = known["deciding"], known["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path / RUN_FILE} cannot be read ({error!r}): choose another run_name") from None
    now = json.loads(json.dumps(config.deciding()))
    changed = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ConfigError(
            f"run '{path.name}' in {path.parent} was started with other options: {'; '.join(changed)}. "
            "To resume it, give the same ones; for a new run, choose another run_name or leave run_name out"
        )
    refuse_other_blocks(blocks, data, f"run '{path.name}'", config.data_dir)


def refuse_other_blocks(known: Mapping[str, Any], data: DataIdentity, what: str, data_dir: str) -> None:
    """CheckpointError if `known`, recorded with a run or checkpoint, describes other blocks than `data`."""
    if known.get("tokenizer_fingerprint") != data.tokenizer_fingerprint:
        raise CheckpointError(
            f"{what} was trained with tokenizer {str(known.get('tokenizer_fingerprint'))[:12]}, but the blocks in "
            f"{data_dir} were made with tokenizer {data.tokenizer_fingerprint[:12]}: its embeddings would mean other "
            "words. Give the blocks it was trained on, or start a new run with another run_name"
        )
    if known.get("fingerprint") != data.fingerprint:
        raise CheckpointError(
            f"{what} was trained on blocks {str(known.get('fingerprint'))[:12]}, but {data_dir} holds "
            f"{data.fingerprint[:12]} (same tokenizer, other text or options of preprocessing). "
            "Give the blocks it was trained on, or start a new run with another run_name"
        )


class Events:
    """Append-only `events.jsonl`, one JSON object a line."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.path / EVENTS_FILE
        self._torn = self._said = False

    def add(self, kind: str, text: str = "", **more: Any) -> None:
        """Append an event, in one write, so that lines of several processes never mix.

        One that cannot be written (disk full) is lost, and said in the worker's output: it must not end training. If
        half of it was written, the next one begins with the end of that line; `read` passes over what is torn.
        """
        line = (json.dumps({"time": round(time.time(), 3), "kind": kind, "text": text, **more}) + "\n").encode()
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if self._torn:
                    line = b"\n" + line
                written = os.write(handle, line)
                self._torn = written < len(line)
            finally:
                os.close(handle)
        except OSError as error:
            reason = error.strerror
        else:
            reason = "disk full" if self._torn else ""
        if not reason:
            self._said = False
        elif not self._said:
            self._said = True
            print(f"{self.path} cannot be written ({reason}); lost: {kind} {text}", file=sys.stderr, flush=True)

    def read(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from byte `offset` on, and the offset after them."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                raw = file.read()
        except FileNotFoundError:
            return [], offset
        whole = raw[: raw.rfind(b"\n") + 1]
        events = []
        for line in whole.splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events, offset + len(whole)
