"""Scores of trivial baselines: the most frequent label, the mean, no answer, the first sentences of the source.

A figure says little until one knows what it has to beat, so every labelled split is scored twice. The baseline
is the same for all seeds and trials: it is computed once and kept beside the features.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from pipelines.console import warn
from pipelines.finetune.job import Job, Part
from pipelines.finetune.predict import scores_of
from pipelines.finetune.rundir import write_json
from pipelines.finetune.splits import read_chosen
from pmlm_core.errors import PmlmError
from pmlm_core.tasks.scores import baselines


def baseline_of(job: Job, part: Part, examples: Sequence[Any], names: Collection[str]) -> dict[str, Any] | None:
    """`{"what": in words, "scores": figures}` of a labelled split.

    None where a constant means nothing, or, said aloud, where it cannot be computed: no run is lost for that.

    Args:
        names: of the task's figures.
    """
    task = job.task
    if task.kind == "question_answering" and not task.can_be_unanswerable:
        return None
    said = [task.name, sorted(task.scorers().items()), job.train.split.identity(), part.split.identity()]
    digest = hashlib.sha256(json.dumps([said, task.lead_sentences]).encode()).hexdigest()[:24]
    path = job.cache_dir / f"baseline-{digest}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    try:
        what, predictions = _guess(job, examples)
        # Correlations with a constant are undefined, which counts as 0 and is warned of where a model's are.
        constant = task.kind == "regression"
        scores = dict.fromkeys(names, 0.0) if constant else scores_of(task, examples, predictions)
        found = {"what": what, "scores": scores}
    except (PmlmError, OSError) as error:
        warn(f"what the trivial baseline scores on '{part.split.name}' cannot be told: {error}")
        return None
    with suppress(OSError):  # the next seed computes it again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return found


def _guess(job: Job, examples: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """In words, and by id."""
    task, data_dir = job.task, job.config.data_dir
    match task.kind:
        case "classification":
            label = baselines.majority_label(read_chosen(task, data_dir, job.train.split))  # type: ignore[arg-type]
            return f"always '{label}'", {example.id: label for example in examples}
        case "regression":
            value = baselines.mean_value(read_chosen(task, data_dir, job.train.split))  # type: ignore[arg-type]
            return f"always {value:.3g}, the mean", {example.id: value for example in examples}
        case "question_answering":
            return "never an answer", {example.id: baselines.no_answer() for example in examples}
    number = task.lead_sentences
    what = "the first sentence of the source" if number == 1 else f"the first {number} sentences of the source"
    return what, {example.id: baselines.lead(example.source, number) for example in examples}
