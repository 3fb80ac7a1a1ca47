"""Members of a population: the state of a better one taken over, and the places that a member was in."""

import json
import shutil
import time
import uuid
from pathlib import Path

from pipelines.run_folder import RunDir
from pipelines.sweep.trials import Point
from pipelines.tracking.journal import Journal
from pmlm_core.training.checkpoint import all_steps, folder_of, step_of

ORIGIN = "pmlm_origin.json"
"""In a state that Tune hands on: whose it is."""


def take_over(folder: Path, point: Point) -> bool:
    """Where Tune has given this trial the state of a better one: put that in place of its own, and say so."""
    from ray import tune

    given = tune.get_checkpoint()
    if given is None:
        return False
    with given.as_directory() as place:
        origin = json.loads((Path(place) / ORIGIN).read_text(encoding="utf-8"))
        if origin["trial"] == folder.name:
            return False
        checkpoints = RunDir(folder).checkpoints
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True)
        draft = checkpoints / f".taken-{uuid.uuid4().hex[:8]}"
        shutil.copytree(place, draft, ignore=shutil.ignore_patterns(ORIGIN))
        draft.rename(folder_of(checkpoints, int(origin["step"])))
    with (folder / "lineage.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**origin, "params": point.params, "time": round(time.time(), 3)}) + "\n")
    return True


def note_place(folder: Path, point: Point, *, taken: bool) -> None:
    """Put a member's place in the space into its journal: a population moves, and parameters of a run cannot.

    Args:
        taken: the newest checkpoint is another member's, so what the journal has of later steps is no more.
    """
    step = max((step_of(path.name) or 0 for path in all_steps(RunDir(folder).checkpoints)), default=0)
    journal = Journal(folder)
    if taken:
        journal.truncate_after(step)
    numbers = {name: value for name, value in point.params.items() if isinstance(value, int | float)}
    journal.append(step, {f"population/{name}": float(value) for name, value in numbers.items()})
    journal.close()
