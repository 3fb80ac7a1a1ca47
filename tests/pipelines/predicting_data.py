"""Fine-tuned folders with random weights, as `pmlm finetune` leaves them, for tests of prediction."""

import json
from pathlib import Path
from typing import Any

import torch

from pipelines.predict.config import PredictConfig
from pipelines.predict.run import run
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.model import (
    PmlmConfig,
    PmlmForConditionalGeneration,
    PmlmForQuestionAnswering,
    PmlmForSequenceClassification,
)
from pmlm_core.tasks.registry import get_task

HEADS = {
    "classification": ("classification", PmlmForSequenceClassification),
    "regression": ("regression", PmlmForSequenceClassification),
    "question_answering": ("qa", PmlmForQuestionAnswering),
    "generation": ("seq2seq", PmlmForConditionalGeneration),
}
LABELS = ["house", "river", "ship"]


def make_finetuned(
    folder: Path, tokenizer_dir: str, kind: str, *, task: str | None = None, options: dict[str, Any] | None = None
) -> str:
    """A tiny model of a kind with its tokenizer and its `pmlm_task.json`."""
    tokenizer = TextTokenizer.load(tokenizer_dir)
    special = {f"{name}_token_id": token for name, token in tokenizer.special_ids.as_dict().items()}
    name, head = HEADS[kind]
    labels = LABELS if kind == "classification" else []
    if labels:
        special |= {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
    if kind == "regression":
        special["num_labels"] = 1
    torch.manual_seed(3)
    config = PmlmConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **special,
    )
    model = head(config)
    if kind == "generation":
        model.generation_config.update(max_new_tokens=8, num_beams=2, length_penalty=0.7)
    model.save_pretrained(folder)
    tokenizer.save(str(folder))
    recipe = dict(vars(get_task(name, **({"labels": labels} if labels else {})).recipe))
    recipe |= {"max_length": 40, "doc_stride": 8 if kind == "question_answering" else 0}
    recipe |= {"max_target_length": 8 if kind == "generation" else 0}
    content = {
        "format_version": 1,
        "task": task or name,
        "task_options": options or {},
        "kind": kind,
        "labels": labels,
        "can_be_unanswerable": kind == "question_answering",
        "recipe": recipe,
        "metric": "",
    }
    (Path(folder) / "pmlm_task.json").write_text(json.dumps(content))
    return str(folder)


def predict(model: str, inputs: Any, output: Path, **options: Any) -> list[dict[str, Any]]:
    """Run it in this process, unless told otherwise; returns all predictions."""
    given = {"num_workers": 1, "precision": "fp32", **options}
    config = PredictConfig(model=model, inputs=[str(each) for each in inputs], output_dir=str(output), **given)
    config.validate()
    run(config)
    return records(output / "predictions.jsonl")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the lock and what a killed worker left half-written under a temporary name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.suffix != ".tmp"}


def write_texts(path: Path, texts: list[str], **more: Any) -> Path:
    lines = (json.dumps({"text": text, **more}) + "\n" for text in texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path
