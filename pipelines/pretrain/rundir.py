"""Which run a configuration on these blocks is, and whether the one in its folder is the same."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.pretrain.config import DEFAULTS, PretrainConfig
from pipelines.run_folder import CHECKPOINTS, RUN_FILE, RunDir, check_is_new, unreadable, write_record
from pipelines.tracking.redact import redacted
from pmlm_core import storage
from pmlm_core.addresses import normalise
from pmlm_core.corpus.manifest import MANIFEST, kept_name
from pmlm_core.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class DataIdentity:
    """Which blocks, and which tokenizer made them."""

    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int
    max_length: int


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts from.

    Attributes:
        path: its folder or address, which names no other one tomorrow as a link does.
        sha256: of what it holds, see start.py.
    """

    path: str
    sha256: str


def make_folder(config: PretrainConfig, data: DataIdentity, start: Start | None = None) -> Path:
    """The folder to lock before `open_run`; it refuses what `open_run` would, for a lock leaves a file in there.

    Raises:
        ConfigError, CheckpointError: as `open_run`.
    """
    path = check_unless_new(config, data, start)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir: {path} cannot be made: {error.strerror}") from None
    return path


def open_run(config: PretrainConfig, data: DataIdentity, start: Start | None = None) -> tuple[RunDir, bool]:
    """Find or make the folder of the run that `config` on these blocks is; also says whether it was there before.

    Raises:
        ConfigError: a run of that name was started with other options, or something else lies in its folder.
        CheckpointError: it was started on other blocks.
    """
    path = _path_of(config, data, start)
    record = path / RUN_FILE
    if record.exists():
        check_same_run(path, config, data, start)
        return RunDir(path), True
    check_is_new(path)
    try:
        content = {
            "config": redacted(asdict(config)),
            "deciding": _deciding(config, start),
            "start": None if start is None else redacted(asdict(start)),
            "data": asdict(data),
            "started": time.time(),
        }
        write_record(RunDir(path), content)
    except OSError as error:
        raise ConfigError(f"output_dir: {path} cannot be made: {error.strerror}") from None
    return RunDir(path), False


def check_unless_new(config: PretrainConfig, data: DataIdentity, start: Start | None = None) -> Path:
    """Refuse as `open_run` would, but make nothing; the run's folder, be it there or not."""
    path = _path_of(config, data, start)
    if (path / RUN_FILE).exists():
        check_same_run(path, config, data, start)
    else:
        check_is_new(path)
    return path


def check_same_run(path: Path, config: PretrainConfig, data: DataIdentity, start: Start | None = None) -> None:
    """Refuse a configuration, blocks, or a start, that are not those the run in `path` was started with."""
    try:
        known = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        before, blocks = known["deciding"], known["data"]
    except OSError as error:
        raise unreadable(path / RUN_FILE, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path / RUN_FILE} cannot be read ({error!r}): choose another run_name") from None
    refuse_other_run(before, blocks, path, config, data, start)


def refuse_other_run(
    before: Mapping[str, Any],
    blocks: Mapping[str, Any],
    path: Path,
    config: PretrainConfig,
    data: DataIdentity,
    start: Start | None = None,
) -> None:
    """Refuse a configuration, blocks or a start other than the run `path` has in its record (`deciding`, `data`)."""
    now = _deciding(config, start)
    if start is not None and _is_path_of(before.get("init_checkpoint"), config, start):
        before = {**before, "init_checkpoint": start.sha256}
    changed = [
        _difference(name, was, is_now, config)
        for name in sorted({*before, *now})
        # What is not there had its default.
        if (was := before.get(name, DEFAULTS.get(name))) != (is_now := now.get(name, DEFAULTS.get(name)))
    ]
    if changed:
        raise ConfigError(
            f"run '{path.name}' in {path.parent} was started with other options: {'; '.join(changed)}. "
            "To resume it, give the same ones; for a new run, choose another run_name or leave run_name out"
            + _from_its_weights(path)
        )
    refuse_other_blocks(blocks, data, f"run '{path.name}'", config.data_dir)


def _from_its_weights(path: Path) -> str:
    """How to train on with other options from what this run has learned."""
    from pmlm_core.training import checkpoint  # brings torch, which the plan of a run does without

    steps = checkpoint.all_steps(path / CHECKPOINTS)
    return f", from its weights with --init_checkpoint {steps[-1]} (optimizer and schedule afresh)" if steps else ""


def _path_of(config: PretrainConfig, data: DataIdentity, start: Start | None) -> Path:
    return Path(config.output_dir).absolute() / config.name_for(data.fingerprint, _digest(start))


def _deciding(config: PretrainConfig, start: Start | None) -> dict[str, Any]:
    """As a record has it when it is read."""
    return json.loads(json.dumps(config.deciding(_digest(start))))


def _digest(start: Start | None) -> str | None:
    return None if start is None else start.sha256


def _is_path_of(recorded: Any, config: PretrainConfig, start: Start) -> bool:
    """Whether a record names this start by its path, as all did once; what that held then is not known."""
    given = config.init_checkpoint
    return recorded is not None and given is not None and normalise(recorded) in (normalise(given), start.path)


def _difference(name: str, was: Any, is_now: Any, config: PretrainConfig) -> str:
    if name == "init_checkpoint" and was is not None and is_now is not None:
        start = f"the run started from (start in {RUN_FILE})"
        return f"init_checkpoint {config.init_checkpoint} holds other weights than {start}"
    return f"{name} was {was!r} and is {is_now!r}"


def started_alike(config: PretrainConfig, data: DataIdentity, start: Start | None) -> list[str]:
    """Names of runs that the same options on the same blocks started, when init_checkpoint held other weights."""
    names = []
    for record in sorted(Path(config.output_dir).glob(f"*/{RUN_FILE}")) if start is not None else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            known = json.loads(record.read_text(encoding="utf-8"))
            given, before = known["config"]["init_checkpoint"], known["deciding"]
            now = _deciding(config, start)
            if (
                before["init_checkpoint"] != now["init_checkpoint"]
                and {**before, "init_checkpoint": now["init_checkpoint"]} == now
                and known["data"] == asdict(data)
                and normalise(given) == normalise(str(config.init_checkpoint))
            ):
                names.append(record.parent.name)
    return names


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
            f"{_blocks_of_before(str(known.get('fingerprint')), data_dir)}, or start a new run with another run_name"
        )


def _blocks_of_before(fingerprint: str, data_dir: str) -> str:
    """What to do about blocks that were trained on."""
    kept = storage.join(data_dir, kept_name(fingerprint))
    if not storage.exists(kept):
        return "Give the blocks it was trained on"
    return (
        f"If nobody removed shards, those it was trained on are still there: copy {kept} over "
        f"{storage.join(data_dir, MANIFEST)} (the same `pmlm preprocess` makes the newer one again, in no time)"
    )
