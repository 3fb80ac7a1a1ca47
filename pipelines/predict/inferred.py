"""What a model was trained for where no `pmlm_task.json` says it, as of one that Hugging Face's Trainer trained."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines.finetune.source import TASK_FILE
from pmlm_core.errors import ConfigError
from pmlm_core.model.filling import trained_length
from pmlm_core.tasks import glue, seq2seq, squad
from pmlm_core.tasks.base import Recipe

_TASKS = {
    "PmlmForSequenceClassification": "classification",
    "PmlmForQuestionAnswering": "qa",
    "PmlmForConditionalGeneration": "seq2seq",
}
_KINDS = {"qa": "question_answering", "seq2seq": "generation"}
_UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}
"""Labels that transformers leaves out of a configuration, being its own."""


def inferred_description(
    folder: Path, saved: Mapping[str, Any], generation: Mapping[str, Any], *, can_be_unanswerable: bool
) -> dict[str, Any]:
    """What `pmlm_task.json` would say, by the configuration; the columns are the usual ones.

    Args:
        saved: the folder's `config.json`.
        generation: its `generation_config.json`.
        can_be_unanswerable: of a model for questions, which its configuration does not tell.

    Raises:
        ConfigError: it was not fine-tuned, or for what `pmlm predict` does not do.
    """
    architectures = saved.get("architectures") or []
    task = next((_TASKS[name] for name in architectures if name in _TASKS), None)
    if task is None:
        named = ", ".join(architectures) or "no architecture"
        raise ConfigError(
            f"model {folder} was not fine-tuned: its config.json names {named}, and there is no {TASK_FILE}; fine-tune "
            "it first (pmlm finetune --help) and give the folder that comes of it, RUN/seed-0/model"
        )
    labels: list[str] = []
    if task == "classification":
        names = saved.get("id2label") or _UNNAMED
        labels = [str(names[number]) for number in sorted(names, key=int)]
        problem = saved.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
        several = problem == "regression" and len(labels) > 1
        if several or problem not in ("regression", "single_label_classification"):
            raise ConfigError(
                f"model {folder} gives {len(labels)} values a row that do not exclude each other (problem_type "
                f"{problem}), and pmlm predict knows one label or one number a row; use transformers' pipeline for it"
            )
        if problem == "regression":
            task, labels = "regression", []
    positions = int(saved.get("max_position_embeddings", 512))
    return {
        "task": task,
        "kind": _KINDS.get(task, task),
        "labels": labels,
        "can_be_unanswerable": task == "qa" and can_be_unanswerable,
        "recipe": asdict(_recipe(task, positions, min(positions, trained_length(folder) or positions), generation)),
    }


def _recipe(task: str, positions: int, cut_at: int, generation: Mapping[str, Any]) -> Recipe:
    """Lengths that the model has room for: texts are cut where its tokenizer cuts them."""
    if task == "qa":
        length = min(squad.RECIPE.max_length, cut_at)
        return replace(squad.RECIPE, max_length=length, doc_stride=min(squad.RECIPE.doc_stride, length // 3))
    if task == "seq2seq":
        target = int(generation.get("max_new_tokens") or min(seq2seq.RECIPE.max_target_length, positions // 4))
        source = max(1, min(seq2seq.RECIPE.max_length, positions - target))
        return replace(seq2seq.RECIPE, max_length=source, max_target_length=target)
    return replace(glue.RECIPE, max_length=cut_at)
