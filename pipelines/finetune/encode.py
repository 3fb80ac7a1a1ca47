"""Examples to features: in this process, or in Ray tasks where the texts are many."""

import hashlib
import json
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines import cluster
from pipelines.console import say
from pipelines.finetune.elsewhere import files_there, folders_of, there
from pipelines.finetune.families import Feature, family_of
from pipelines.finetune.features import MANIFEST, Drafts, write_part
from pipelines.finetune.job import Job, Part, with_features
from pipelines.finetune.splits import Split, read_chosen
from pipelines.handover.serving import kept_folders, sees
from pmlm_core import storage
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.tasks.base import Recipe, Task
from pmlm_core.tasks.registry import get_task

FORMAT = 1
"""Raise it when features change for the same examples and options."""
_CHUNK = 1024
_WORTH_RAY = 50_000_000
"""Characters of text from which starting Ray costs less than it saves."""


@dataclass(frozen=True)
class Work:
    """The encoding of one split, as a worker process is told of it."""

    task: str
    data_dir: str
    split: Split
    recipe: Recipe
    tokenizer: str
    training: bool
    task_options: Mapping[str, Any] = field(default_factory=dict)

    def key(self, task: Task, fingerprint: str) -> str:
        """Names the features by all that decides them."""
        recipe = asdict(self.recipe)
        content = {
            "format": FORMAT,
            "examples": self.split.identity(),
            "tokenizer": fingerprint,
            "kind": task.kind,
            "labels": task.labels,
            "can_be_unanswerable": task.can_be_unanswerable,
            "training": self.training and task.kind == "question_answering",
            **{name: recipe[name] for name in ("max_length", "max_target_length", "doc_stride")},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encode_all(job: Job) -> Job:
    """The job with the features of all its splits, made now unless the cache has them.

    Raises:
        DataError: as `encode_split`.
    """
    folders: dict[tuple[str, int, bool], Path] = {}
    parts: list[Part] = [job.train, *([job.choose] if job.choose else []), *job.final]
    for part in parts:
        key = (part.split.name, part.split.used, part.training)
        if key not in folders:
            folders[key] = encode_split(
                Work(
                    job.config.task,
                    job.config.data_dir,
                    part.split,
                    job.recipe,
                    job.source.uri or job.source.path,
                    part.training,
                    job.config.task_options(),
                ),
                job.cache_dir,
            )
    return with_features(job, folders)


def encode_split(work: Work, cache_dir: Path, *, num_workers: int | None = None) -> Path:
    """The folder of a split's features; made now unless the cache has it.

    Raises:
        DataError: an example cannot be read again, or worker processes died again and again.
    """
    task, tokenizer = get_task(work.task, **work.task_options), TextTokenizer.load(work.tokenizer)
    final = cache_dir / f"{work.task}-{work.split.name}-{work.key(task, tokenizer.fingerprint)[:16]}"
    if (final / MANIFEST).is_file():
        return final
    drafts = Drafts(final)
    try:
        if work.split.characters * work.split.used / work.split.examples < _WORTH_RAY:
            parts = [_write(work, task, tokenizer, drafts.path, 0, 0, work.split.used)]
        else:
            parts = _over_ray(work, drafts.path, num_workers)
        return drafts.publish(parts)
    except BaseException:
        drafts.discard()
        raise


def _write(
    work: Work, task: Task, tokenizer: TextTokenizer, folder: Path, number: int, first: int, stop: int
) -> dict[str, Any]:
    family = family_of(task, work.recipe, tokenizer)
    examples = read_chosen(task, work.data_dir, work.split, first, stop)

    def chunks() -> Iterator[Sequence[Feature]]:
        done = 0
        while chunk := list(islice(examples, _CHUNK)):
            features = family.encode(chunk, training=work.training)
            if done and features and "example" in features[0]:
                features = [{**feature, "example": feature["example"] + done} for feature in features]
            done += len(chunk)
            yield features

    return write_part(folder / f"part-{number:05d}.arrow", chunks(), first)


def _over_ray(work: Work, folder: Path, num_workers: int | None) -> list[dict[str, Any]]:
    from pipelines.ray_map import over_ray

    share = max(_CHUNK, -(-work.split.used // (4 * (num_workers or cluster.available_cpus()))))
    starts = range(0, work.split.used, share)
    items = [
        {"number": number, "first": first, "stop": min(first + share, work.split.used)}
        for number, first in enumerate(starts)
    ]
    say(f"encoding {work.split.used:,} examples of split '{work.split.name}' in {len(items)} Ray tasks")
    with (
        cluster.connected(),
        kept_folders(
            [folder], [work.data_dir, work.tokenizer, *folders_of(work.task_options)], wanted=cluster.is_remote()
        ) as keeper,
    ):
        task = partial(_part, work=pickle.dumps(work), folder=str(folder), keeper=keeper)
        rows = list(over_ray(task, items, num_workers=num_workers, what=f"encode split '{work.split.name}'"))
    return [json.loads(row["part"]) for row in sorted(rows, key=lambda row: row["number"])]


def _part(item: dict[str, Any], *, work: bytes, folder: str, keeper: str | None) -> dict[str, Any]:
    """Read the split up to one part's end and encode that part; only its line of the manifest goes back.

    Args:
        keeper: of the driver's machine, which a node asks that does not see `folder`; None where every node sees it.
    """
    told: Work = pickle.loads(work)
    if keeper is None or sees(Path(folder), keeper):
        return _encoded(told, Path(folder), item)
    with tempfile.TemporaryDirectory(prefix="pmlm-features-") as place:
        row = _encoded(_from_there(told, keeper), Path(place), item)
        for path in Path(place).iterdir():
            storage.copy_file(path, there(f"{folder}/{path.name}", keeper))
        return row


def _from_there(work: Work, keeper: str) -> Work:
    """The same with addresses: of the tokenizer's folder, which may be a whole checkpoint, its own files are read."""
    data_dir = there(work.data_dir, keeper)
    options = {**work.task_options, **files_there(work.task_options, keeper)}
    options |= {"data_dir": data_dir} if "data_dir" in options else {}
    return replace(work, data_dir=data_dir, tokenizer=there(work.tokenizer, keeper), task_options=options)


def _encoded(work: Work, folder: Path, item: dict[str, Any]) -> dict[str, Any]:
    task, tokenizer = get_task(work.task, **work.task_options), TextTokenizer.load(work.tokenizer)
    part = _write(task=task, work=work, tokenizer=tokenizer, folder=folder, **item)
    return {"number": item["number"], "part": json.dumps(part)}
