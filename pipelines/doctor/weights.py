"""What stages beside pre-training weigh, by the formulas of their dry runs; None for a model that is not made yet.

Rows are counted at the longest that options and recipe allow: the data is not read.
"""

import json
from dataclasses import replace
from typing import Any

from pipelines.doctor.pretraining import Weight
from pipelines.finetune.config import RECIPE, FinetuneConfig
from pipelines.finetune.plan import shape_in, worker_memory
from pipelines.predict.config import PredictConfig
from pipelines.predict.estimate import cost_of
from pipelines.predict.finetuned import open_finetuned
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import OPTIONS, trial_options
from pmlm_core import storage
from pmlm_core.model import cost
from pmlm_core.tasks.registry import get_task
from tune_spaces.registry import get_benchmark


def of_finetune(config: FinetuneConfig) -> Weight | None:
    """A worker, and the checkpoints of a run.

    Raises:
        PmlmError: the options contradict each other.
        OSError: the object store that holds the model failed.
    """
    config.validate()
    saved = _saved(config.model)
    if saved is None:
        return None
    # Labels that are left out would be read from the data.
    told = {"labels": ["0", "1"]} if config.task == "classification" else {}
    given = {name: getattr(config, name) for name in RECIPE if getattr(config, name) is not None}
    recipe = replace(get_task(config.task, **told).recipe, **given)
    shape, vocabulary = shape_in(saved), int(saved["vocab_size"])
    count = cost.parameters(
        shape,
        vocabulary,
        max_position_embeddings=int(saved.get("max_position_embeddings", 512)),
        rel_pos_bins=shape.rel_pos_bins,
    )
    longest = recipe.max_length + 2 * recipe.max_target_length
    # Three checkpoints while training, the weights of every seed at the end.
    disk = 3 * cost.checkpoint_bytes(count) + 4 * count * len(config.all_seeds())
    return Weight(worker_memory(config, recipe, shape, vocabulary, count, longest).total, disk)


def of_sweep(config: SweepConfig) -> Weight | None:
    """A worker of the heaviest benchmark's trials, at what the benchmark gives to all of them.

    Not counted: what a search tries instead (a larger batch_size takes more where micro_batch_size is left out), and
    what many trials take on disk.

    Raises:
        PmlmError, OSError: as `of_finetune`; or a benchmark's file cannot be used.
    """
    if _saved(config.model) is None:
        return None
    found = []
    for name in config.benchmark:
        benchmark = get_benchmark(name, OPTIONS)
        options = {**benchmark.options, **(config.options or {})}
        found.append(of_finetune(trial_options(config, benchmark, options, data_dir="")))
    return Weight(max((each.worker for each in found if each), default=0), 0)


def of_predict(config: PredictConfig) -> Weight | None:
    """A worker.

    Raises:
        PmlmError: the folder is no fine-tuned model, or cannot do what is asked.
        OSError: it cannot be read.
    """
    if _saved(config.model) is None:
        return None
    return Weight(cost_of(config, open_finetuned(config), rows=0, nbytes=0).memory, 0, libraries=0)


def _saved(model: str) -> dict[str, Any] | None:
    path = storage.join(model, "config.json")
    told = storage.read_if_there(path) if model else None
    return None if told is None else json.loads(told)
