"""What a recipe or a command asks of the machines: places to read and write, workers, memory, disk."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines import cluster, options
from pipelines.cli import COMMANDS
from pipelines.doctor.config import DoctorConfig
from pipelines.doctor.finding import Finding, error
from pipelines.doctor.pretraining import PREPROCESSING, Weight, weigh
from pipelines.inner_command import class_of, parse
from pipelines.run_place import worked_on_here
from pipelines.sweep.config import KEEPING_STATES
from pipelines.tracking.patience import Attempt
from pmlm_core import storage

_WRITTEN = ("output_dir", "upload_dir")
_READ = ("inputs", "data_dir", "tokenizer", "model", "init_checkpoint")
_TRAINING = ("pretrain", "finetune", "sweep")
_SERVED = ("output_dir", "data_dir", "model", "init_checkpoint")


@dataclass(frozen=True)
class Place:
    """A path or address; `option` is who names it. `renames`: checkpoints are renamed into place there.

    `given`: the user's own wish, not a file's that may have been written for another machine. `through_driver`: nodes
    that do not see it are served by the command's machine (pipelines/handover).
    """

    path: str
    option: str
    written: bool
    renames: bool = False
    given: bool = True
    through_driver: bool = False


@dataclass(frozen=True)
class Job:
    """Workers of a stage.

    Attributes:
        num_workers: without which it does not run.
        group: they talk to each other.
        weight: None where it cannot be told: the model is not made yet, or nothing is known of the stage.
        most: workers at a time where there is room for more than num_workers: as many as fit for None, no more for 0.
    """

    stage: str
    num_workers: int
    cpus: int
    gpus: float
    group: bool
    output_dir: str = ""
    weight: Weight | None = None
    most: int | None = 0


@dataclass(frozen=True)
class Demands:
    """All that is asked; `tracking_uri` as an option would have it. `findings`: what cannot be asked at all."""

    places: tuple[Place, ...] = ()
    jobs: tuple[Job, ...] = ()
    tracking_uri: str | None = None
    findings: tuple[Finding, ...] = ()


def settle(config: DoctorConfig) -> Demands:
    """Read recipe or command.

    Raises:
        ConfigError: they cannot be read, or hold options that do not exist.
    """
    found: list[tuple[str, Any]] = []
    if config.recipe is not None:
        found = [_lenient(config.recipe, name) for name in options.sections(config.recipe, tuple(COMMANDS))]
    elif config.command:
        stage, request = parse(config.command, purpose="be made ready for", never=("doctor", "submit"))
        found = [(stage, request.config)]
    places = [Place(_absolute(path), "--paths", written=True) for path in config.paths]
    jobs, findings = [], []
    for stage, each in found:
        each = worked_on_here(each) if stage in _TRAINING else each
        places += _places(stage, each, given=config.recipe is None)
        job, finding = _job(stage, each, config.timeout)
        jobs += [job] if job else []
        findings += [finding] if finding else []
    uri = next((each.tracking_uri for _, each in found if getattr(each, "tracking_uri", None)), None)
    return Demands(_each_once(places), tuple(jobs), config.tracking_uri or uri, tuple(findings))


def _lenient(recipe: str, stage: str) -> tuple[str, Any]:
    """A section of a recipe; what it leaves to the command line stays empty."""
    config_class = class_of(stage)
    values = options.section(recipe, stage, config_class, tuple(COMMANDS))
    missing = dataclasses.MISSING
    for field in dataclasses.fields(config_class):
        if field.default is missing and field.default_factory is missing:
            values.setdefault(field.name, "")
    return stage, config_class(**values)


def _places(stage: str, config: Any, *, given: bool) -> list[Place]:
    found = []
    for name in (*_WRITTEN, *_READ):
        value = getattr(config, name, None)
        for each in value if isinstance(value, list) else [value]:
            if not each:
                continue
            path = each.rpartition("=")[2] if stage == "sweep" and name == "data_dir" else each
            path = _absolute(_above_wildcards(path) if name == "inputs" else path)
            renames = name == "output_dir" and stage in _TRAINING and not storage.is_remote(path)
            served = name in _SERVED and stage in _TRAINING and not storage.is_remote(path)
            if name == "output_dir" and getattr(config, "strategy", "") in KEEPING_STATES:
                served = False
            found.append(Place(path, f"{stage} {name}", name in _WRITTEN, renames, given, served))
    return found


def _each_once(places: list[Place]) -> tuple[Place, ...]:
    """One for each path; what one stage writes and another reads counts as written."""
    found: dict[str, Place] = {}
    for place in places:
        known = found.setdefault(place.path, place)
        if place.written and not known.written:
            found[place.path] = place
        elif place.renames and not known.renames:
            found[place.path] = dataclasses.replace(known, renames=True)
        if not (place.through_driver and known.through_driver):
            found[place.path] = dataclasses.replace(found[place.path], through_driver=False)
    return tuple(found.values())


def _job(stage: str, config: Any, timeout: float) -> tuple[Job | None, Finding | None]:
    if stage in ("pretrain", "finetune"):
        threads = cluster.threads_per_worker(config.cpus_per_worker, config.num_workers)
        workers = config.num_workers
        needed = getattr(config, "min_workers", None) or workers
        job = Job(stage, needed, threads, float(config.use_gpu), workers > 1, config.output_dir, most=workers)
    elif stage == "sweep":
        workers, trials = config.num_workers, config.max_concurrent_trials
        cpus, gpus = config.cpus_per_trial, config.gpus_per_trial
        most = trials and trials * workers * len(config.benchmark)
        job = Job(stage, workers, cpus, gpus, workers > 1, config.output_dir, most=most)
    elif stage == "predict":
        workers, gpus = config.num_workers or 1, float(config.use_gpu)
        job = Job(stage, workers, config.cpus_per_worker, gpus, False, most=config.num_workers)
    elif stage in ("tokenizer", "preprocess"):
        # A cluster with fewer CPUs does as many tasks at a time as it has.
        needed = 1 if cluster.is_remote() else config.num_workers or 1
        job = Job(stage, needed, 1, 0.0, False, most=config.num_workers)
    else:
        return None, None
    how = _way_to_weigh(stage)
    attempt = Attempt(lambda: how(config), timeout, "doctor-weigh")  # it reads folders, which may hang
    if attempt.failure is not None:
        why = f"memory of {stage} cannot be told: {attempt.failure}"
        return job, error(why, "Mend the option or file that it names, or the storage that does not answer.")
    return dataclasses.replace(job, weight=attempt.result), None


def _way_to_weigh(stage: str) -> Callable[[Any], Weight | None]:
    match stage:
        case "pretrain":
            return weigh
        case "preprocess":
            return lambda _: PREPROCESSING
        case "tokenizer":
            return lambda _: None
    from pipelines.doctor import weights  # imports torch, which is not to be counted in the attempt's time

    ways: dict[str, Callable[[Any], Weight | None]]
    ways = {"finetune": weights.of_finetune, "sweep": weights.of_sweep, "predict": weights.of_predict}
    return ways[stage]


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else storage.absolute(path)


def _above_wildcards(path: str) -> str:
    """The folder above the first part with a wildcard.

    >>> _above_wildcards("s3://bucket/text/*/part-?.jsonl"), _above_wildcards("text/a.txt"), _above_wildcards("*.txt")
    ('s3://bucket/text', 'text/a.txt', '.')
    """
    plain, query = storage.split_query(path)
    if not (wild := re.search(r"[*?\[]", plain)):
        return path
    head, slash, _ = plain[: wild.start()].rpartition("/")
    return storage.with_query(head or slash or ".", query)
