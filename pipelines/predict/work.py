"""Who does the pieces: this process, or workers of Ray Data, each with a model of its own.

Texts and predictions never pass through Ray's object store: a worker reads a piece's rows itself and writes its file.
"""

import pickle
import platform
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from pipelines import cluster
from pipelines.console import counted, say
from pipelines.finetune.source import Source
from pipelines.predict.config import PredictConfig
from pipelines.predict.finetuned import Finetuned
from pipelines.predict.inputs import Input, Piece
from pipelines.predict.piece import Done, do_piece, load_done
from pmlm_core.errors import DataError, PmlmError


def in_this_process(
    pieces: Sequence[Piece], inputs: Sequence[Input], config: PredictConfig, finetuned: Finetuned, output_dir: str
) -> Iterator[Done]:
    """Do the pieces one after the other.

    Raises:
        PmlmError: of the first that cannot be done.
    """
    from transformers.utils.logging import disable_progress_bar

    from pipelines.predict.predictor import Predictor

    disable_progress_bar()
    predictor = Predictor(config, finetuned)
    for piece in pieces:
        yield do_piece(piece, inputs, finetuned.task.kind, config, output_dir, predictor.predict)


def what_it_is(source: Source) -> dict[str, Any]:
    """By which a worker knows that it has the same model: a copy of one in a store may lie anywhere."""
    known = vars(source) | {"mlflow_run_id": None}
    return known if source.uri is None else known | {"path": ""}


class Worker:
    """A Ray worker with a model. Errors come back as data, so that one bad disk does not stop the others."""

    def __init__(self, config: PredictConfig, told: dict[str, Any], output_dir: str) -> None:
        self._config, self._output_dir = config, output_dir
        self._predictor: Any = None
        self._finetuned: Finetuned | None = None
        self._told = told

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        piece, inputs = pickle.loads(item["piece"])
        error, fatal = "", False
        try:
            predictor, kind = self._loaded()
            do_piece(piece, inputs, kind, self._config, self._output_dir, predictor.predict)
        except PmlmError as problem:
            error, fatal = str(problem), True
        except OSError as problem:
            error = f"machine {platform.node()}, piece {piece.number}: {type(problem).__name__}: {problem}"
        except Exception:
            # A fault of ours: the trace is what a report of it needs.
            error, fatal = f"piece {piece.number}: {traceback.format_exc()}", True
        return {"number": item["number"], "error": error, "fatal": fatal}

    def _loaded(self) -> tuple[Any, str]:
        if self._predictor is None:
            from transformers.utils.logging import disable_progress_bar

            from pipelines.predict.finetuned import open_finetuned
            from pipelines.predict.predictor import Predictor

            disable_progress_bar()
            finetuned = open_finetuned(self._config)
            if what_it_is(finetuned.source) != self._told:
                raise DataError(f"machine {platform.node()}: model {self._config.model} is another one here")
            self._predictor, self._finetuned = Predictor(self._config, finetuned), finetuned
        assert self._finetuned is not None
        return self._predictor, self._finetuned.task.kind


@lru_cache(maxsize=1)
def _worker(told: bytes) -> Worker:
    """The worker of this process, which does one piece after the other."""
    return Worker(**pickle.loads(told))


def do_item(item: dict[str, Any], *, told: bytes) -> dict[str, Any]:
    """A piece as a task of Ray: Ray uses a process again for the next, so the model is loaded once in each."""
    return _worker(told)(item)


def over_workers(
    pieces: Sequence[Piece], inputs: Sequence[Input], config: PredictConfig, finetuned: Finetuned, output_dir: str
) -> Iterator[Done]:
    """Do the pieces over Ray, in any order.

    Raises:
        DataError: pieces could not be done; the others are kept.
    """
    from pipelines.ray_map import over_ray

    workers = config.num_workers
    needed = min(workers, len(pieces)) * config.cpus_per_worker if workers else None
    with cluster.connected(cluster.cpus_to_start(needed) if needed else None) as ray:
        if workers is None:
            have = ray.cluster_resources()
            per_cpu = int(have.get("CPU", 1)) // config.cpus_per_worker
            workers = max(1, min(per_cpu, int(have.get("GPU", 0))) if config.use_gpu else per_cpu)
        workers = min(workers, len(pieces))
        cluster.require(workers, config.cpus_per_worker, config.use_gpu)
        say(f"{counted(workers, 'worker')} of {counted(config.cpus_per_worker, 'CPU')}{' and a GPU' * config.use_gpu}")
        items = [{"number": piece.number, "piece": pickle.dumps(_with_its_inputs(piece, inputs))} for piece in pieces]
        told = {
            "config": replace(config, model=finetuned.source.path),
            "told": what_it_is(finetuned.source),
            "output_dir": output_dir,
        }
        rows = over_ray(
            # Of a task with a GPU, Ray ends the process to have the memory back; an actor keeps its model.
            Worker if config.use_gpu else partial(do_item, told=pickle.dumps(told)),
            items,
            num_workers=workers,
            what="finish predicting",
            kept="what is done is kept, the same command goes on from there",
            made_with=told if config.use_gpu else None,
            num_cpus=config.cpus_per_worker,
            num_gpus=int(config.use_gpu),
        )
        yield from _told(rows, len(pieces), output_dir)


def _with_its_inputs(piece: Piece, inputs: Sequence[Input]) -> tuple[Piece, list[Input]]:
    """A piece with the files it reads and no others."""
    numbers = sorted({part.input for part in piece.parts})
    parts = tuple(replace(part, input=numbers.index(part.input)) for part in piece.parts)
    return replace(piece, parts=parts), [inputs[number] for number in numbers]


def _told(rows: Iterator[dict[str, Any]], count: int, output_dir: str) -> Iterator[Done]:
    errors: list[str] = []
    for row in rows:
        if row["error"] and row["fatal"]:
            raise DataError(f"{row['error']}\nWhat is finished is kept; the same command goes on from there.")
        if row["error"]:
            errors.append(row["error"])
            continue
        done = load_done(output_dir, int(row["number"]))
        if done is None:
            errors.append(f"piece {row['number']} is not in {output_dir}: is it the same folder on every machine?")
            continue
        yield done
    if errors:
        raise DataError(
            f"{len(errors)} of {counted(count, 'piece')} could not be done; the others are kept, and the same command "
            "does only these:\n" + "\n".join(f"  {error}" for error in errors[:10])
        )
