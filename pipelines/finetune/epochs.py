"""Which epoch is best: scores on the development split after each, and when to stop waiting for a better one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pipelines.finetune.families import Family
from pipelines.finetune.features import Features
from pipelines.finetune.job import Job
from pipelines.finetune.predict import outputs_of, scores_of
from pipelines.finetune.results import ordered
from pipelines.finetune.splits import read_chosen
from pipelines.team import Team
from pmlm_core.errors import ConfigError
from pmlm_core.training import hardware
from pmlm_core.training.step import Precision


class Chooser:
    """Scores the model on what epochs are chosen by. Every worker calls it; rank 0 holds the examples and scores."""

    def __init__(self, job: Job, family: Family, team: Team, precision: Precision) -> None:
        assert job.choose is not None
        self._job, self._family, self._team, self._precision = job, family, team, precision
        self._features = Features(Path(job.choose.features))
        self._task = job.task
        self._examples = list(read_chosen(self._task, job.config.data_dir, job.choose.split)) if team.leads else []

    def scores(self, model: nn.Module) -> dict[str, float]:
        """Figures of the task, the same on every rank."""
        config = self._job.config
        way_out = f"give a smaller eval_batch_size than {config.eval_batch_size}, and the same command goes on"
        with hardware.full_memory_told(way_out):
            outputs = outputs_of(
                self._family,
                model,
                self._features,
                self._precision,
                self._team,
                batch_size=config.eval_batch_size,
                num_beams=config.eval_num_beams,
            )
        scores = None
        if self._team.leads:
            predictions = self._family.predictions(self._examples, self._features, outputs)
            scores = scores_of(self._task, self._examples, predictions)
            if self._task.metric not in scores:
                raise ConfigError(
                    f"metric_for_best_model '{self._task.metric}' is no figure of task '{self._task.name}'; it has "
                    f"{', '.join(ordered(scores, ''))}"
                )
        return self._team.agree(scores)


def worth(scores: Mapping[str, float], metric: str) -> float | None:
    """What epochs are ranked by: the metric, and, where epochs tie in it, the mean of the other figures.

    The others weigh a millionth, less than a ten-thousandth of a point: early epochs of a generation, all with a BLEU-4
    of 0, differ by them. One number serves for the history and for the checkpoints. None without scores.

    >>> worth({"bleu4": 0.0, "rougeL": 4.0}, "bleu4") < worth({"bleu4": 0.0, "rougeL": 6.0}, "bleu4")
    True
    """
    if metric not in scores:
        return None
    others = [scores[name] for name in ordered(scores, metric)[1:]]
    return scores[metric] + 1e-6 * (sum(others) / len(others) if others else 0.0)


def best_epoch(history: Sequence[dict[str, Any]], metric: str) -> int | None:
    """Place in `history` of the epoch worth most, the earliest of equal ones; None if none was scored.

    >>> best_epoch([{"scores": {"f1": 1.0}}, {"scores": {"f1": 3.0}}, {"scores": {"f1": 3.0}}], "f1")
    1
    """
    ranked = [(value, -place) for place, e in enumerate(history) if (value := worth(e["scores"], metric)) is not None]
    return -max(ranked)[1] if ranked else None


def stands_still(history: Sequence[dict[str, Any]], metric: str, patience: int | None) -> bool:
    """Whether the last `patience` epochs have all not bettered the best before them.

    >>> stands_still([{"scores": {"f1": 3.0}}, {"scores": {"f1": 1.0}}, {"scores": {"f1": 3.0}}], "f1", 2)
    True
    """
    best = best_epoch(history, metric)
    return patience is not None and best is not None and len(history) - 1 - best >= patience
