"""The checkpoint that fine-tuning starts from: what it is, whether it will do, and the model made of it."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pipelines.finetune.families import decoding
from pipelines.model_here import local_copy
from pmlm_core import storage
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import CheckpointError, ConfigError, DataError, PmlmError
from pmlm_core.model.foreign import check_ours
from pmlm_core.model.weights import INDEX, files_in
from pmlm_core.randomness import key
from pmlm_core.tasks.base import Recipe, Task
from pmlm_core.training import checkpoint

WEIGHTS = ("model.safetensors", INDEX)
TASK_FILE = "pmlm_task.json"
"""Beside the weights of a fine-tuned model: what it was trained for."""


@dataclass(frozen=True)
class Source:
    """Which checkpoint.

    Attributes:
        path: its folder, links followed.
        sha256: of its weights.
        tokenizer: fingerprint of the tokenizer in its folder.
        mlflow_run_id: of the run that made it, where it lies in that run's folder.
        positions, vocab_size: of its model.
        objective: what it was pre-trained by ("AE+PAR"), as its configuration says.
        uri: where it lies, if that is an object store or the driver's machine; `path` is its copy on this one then.
    """

    path: str
    sha256: str
    tokenizer: str
    mlflow_run_id: str | None
    positions: int
    vocab_size: int
    objective: str | None = None
    uri: str | None = None

    def here(self) -> "Source":
        """The same on the machine of this process, which fetches it from the store if it has not yet."""
        if self.uri is None or not storage.is_remote(self.uri):
            return self
        return replace(self, path=local_copy(self.uri))

    def described(self) -> dict[str, Any]:
        """What is stored with everything made from it."""
        return {
            "path": self.uri or self.path,
            "sha256": self.sha256,
            "tokenizer": self.tokenizer,
            "mlflow_run_id": self.mlflow_run_id,
            "objective": self.objective,
        }


def open_source(model: str) -> Source:
    """Look at a checkpoint folder; nothing heavy is loaded.

    Raises:
        ConfigError: it is no checkpoint, or has no tokenizer that fits it.
        CheckpointError: its bytes are not those that were written.
    """
    folder = Path(local_copy(model)).expanduser().resolve()
    if (folder / "config.json").is_file():
        check_ours((folder / "config.json").read_bytes(), model)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if not (folder / "config.json").is_file() or weights is None:
        inside = sorted(folder.glob("seed-*/model/config.json"))
        way_out = (
            f"it is a run of `pmlm finetune`: give {inside[0].parent}"
            if inside
            else "give one that `pmlm pretrain` made, such as outputs/mini/pretrain/final"
        )
        raise ConfigError(
            f"model {model} is no checkpoint folder (it needs config.json and model.safetensors); {way_out}"
        )
    config = _config(folder)
    try:
        tokenizer = TextTokenizer.load(str(folder))
    except DataError as error:
        raise ConfigError(f"model {model} has no tokenizer beside it: {error}") from None
    if tokenizer.vocab_size > config["vocab_size"]:
        raise ConfigError(
            f"model {model}: its tokenizer has {tokenizer.vocab_size} tokens, the model {config['vocab_size']} token "
            "embeddings; put the tokenizer it was trained with into the folder"
        )
    digest = _weights_digest(model, folder, weights)
    return Source(
        str(folder),
        digest,
        tokenizer.fingerprint,
        _mlflow_run(folder),
        int(config.get("max_position_embeddings", 512)),
        int(config["vocab_size"]),
        config.get("objective"),
        model if storage.is_remote(model) else None,
    )


def _weights_digest(model: str, folder: Path, weights: Path) -> str:
    """SHA-256 (hex) of the weights: of the one file, or of the digests of the index and all files that it names."""
    files = [weights]
    if weights.name != WEIGHTS[0]:
        files += [folder / name for name in files_in(weights)]
        if lacking := [path.name for path in files if not path.is_file()]:
            raise CheckpointError(f"model {model} is damaged: {', '.join(lacking)} of {weights.name} is not there")
    digests = {path.name: checkpoint.sha256(path) for path in files}
    if (folder / checkpoint.MANIFEST).is_file():
        written = checkpoint.read_manifest(folder)["files"]
        for name, digest in digests.items():
            if written.get(name, {}).get("sha256", digest) != digest:
                raise CheckpointError(f"model {model} is damaged: {name} is not as it was written")
    if len(files) == 1:
        return digests[weights.name]
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        int(config["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / 'config.json'} cannot be read: {error!r}") from None
    return config


def _mlflow_run(folder: Path) -> str | None:
    """Run id from the `mlflow.json` of the run's folder, two levels above a checkpoint."""
    from pipelines.tracking.record import Record

    for above in folder.parents[:2]:
        try:
            record = Record.load(above)
        except PmlmError:
            return None
        if record is not None:
            return record.run_id
    return None


def model_class(task: Task) -> Any:
    """The class with the head that a task needs."""
    from pmlm_core import model

    names = {"question_answering": "PmlmForQuestionAnswering", "generation": "PmlmForConditionalGeneration"}
    return getattr(model, names.get(task.kind, "PmlmForSequenceClassification"))


def build_model(
    task: Task, recipe: Recipe, source: Source, *, from_scratch: bool, seed: int, dropout: tuple[float, float]
) -> Any:
    """The model to train, fp32 on the CPU: body from the checkpoint (or drawn anew), head drawn from the seed unless
    the checkpoint brings one for this task.

    Args:
        dropout: on hidden states and on attention weights.

    Raises:
        CheckpointError: the weights cannot be loaded.
    """
    cls, settings = model_class(task), settings_of(task, dropout)
    try:
        if from_scratch:
            config = cls.config_class.from_pretrained(source.path, **settings)
            config.architectures = None
            torch.manual_seed(key(seed, "initial weights") >> 1)
            model = cls(config)
        else:
            model = _loaded(cls, task, source, seed, settings)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if isinstance(error, PmlmError):
            raise
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"model {source.path} cannot be loaded ({type(error).__name__}: {text})") from error
    if task.kind == "generation":
        from pmlm_core.model.positions import extend_positions

        extend_positions(model, recipe.max_length + recipe.max_target_length)
        model.decode_by(**decoding(recipe, recipe.num_beams))  # saved with the model
    return model


def _loaded(cls: Any, task: Task, source: Source, seed: int, settings: dict[str, Any]) -> Any:
    if task.kind == "generation":  # whose head is pre-training's
        return cls.from_pretrained(source.path, dtype=torch.float32, **settings)
    if brings_head(source, task) is False:
        return cls.with_new_head(source.path, head_seed=seed, **settings)
    return cls.from_pretrained(source.path, dtype=torch.float32, head_seed=seed, **settings)


def brings_head(source: Source, task: Task) -> bool | None:
    """Whether the checkpoint's head goes on being trained: False if its labels say something else, being another
    task's; None if it has none of this form."""
    config = _config(Path(source.path))
    if model_class(task).__name__ not in (config.get("architectures") or ()):
        return None
    if task.kind == "question_answering":
        return True
    told = Path(source.path) / TASK_FILE
    trained_for = json.loads(told.read_text(encoding="utf-8"))["task"] if told.is_file() else task.name
    labels = tuple((config.get("id2label") or {}).values())
    return bool(trained_for == task.name and (task.kind == "regression" or labels == tuple(task.labels)))


def keeps_head(source: Source, task: Task, *, from_scratch: bool) -> bool:
    """Whether the checkpoint's head goes on being trained, and none is drawn for the task."""
    return task.kind != "generation" and not from_scratch and bool(brings_head(source, task))


def settings_of(task: Task, dropout: tuple[float, float]) -> dict[str, Any]:
    """Fields of the model's configuration that fine-tuning sets."""
    settings: dict[str, Any] = {"hidden_dropout_prob": dropout[0], "attention_probs_dropout_prob": dropout[1]}
    if task.kind == "classification":
        settings["id2label"] = dict(enumerate(task.labels))
        settings["label2id"] = {label: number for number, label in enumerate(task.labels)}
        settings["num_labels"] = len(task.labels)
    elif task.kind == "regression":
        settings["num_labels"] = 1
    return settings
