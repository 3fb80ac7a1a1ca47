"""What Tune tells of its trials, handed on to the board and to MLflow; and the folders of ended trials cleared up."""

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback

from pipelines.console import warn
from pipelines.finetune.rundir import MODEL, SCORES, write_json
from pipelines.run_folder import CHECKPOINTS, RunDir
from pipelines.sweep.board import Board, Standing, in_words
from pipelines.sweep.choose import leaders
from pipelines.sweep.course import Course
from pipelines.sweep.tracking import SweepTracking
from pipelines.sweep.trial import EPOCH, FINAL, POINT_KEY, SCORE
from pipelines.sweep.trials import STOPPED, Ended, Point, ended_trials, point_of, read_failure
from pipelines.train_group import release

_WATCHED: dict[str, "Watch"] = {}


class Watch:
    """Follows one benchmark's trials in the driver."""

    def __init__(self, course: Course, board: Board, tracking: SweepTracking, news: Callable[[], None]) -> None:
        """`news` is called when there is something to be uploaded."""
        self._course, self._board, self._tracking, self._news = course, board, tracking, news
        self._phase, self._copies = "", False
        self._outcomes: dict[str, str] = {}
        self.when_running: Callable[[], None] = lambda: None

    @property
    def _standing(self) -> Standing:
        return self._board.standings[self._course.benchmark.name]

    def begin(self, phase: str, total: int, copies: bool, known: Iterable[Ended], done: Collection[str]) -> "TuneWatch":
        """A phase begins; returns what Tune calls.

        Args:
            known: trials that have ended before.
            done: the names of those that this phase has nothing to do for.
        """
        self._phase, self._copies = phase, copies
        # A grid has no finalists: its winner predicts what is left, or is trained again if its model was removed.
        shown = "winner" if phase == "finalists" and self._course.config.strategy == "paper_grid" else phase
        with self._board.lock:
            self._standing.begin(shown, total, done)
        for ended in known:
            self._outcomes[ended.folder.name] = "finished"
            if ended.folder.name in done:
                self._lead(ended.score, ended.point, final=True)
        key = f"{self._course.run.path.parent.name}/{self._course.run.name}"  # the same wherever the folder lies
        _WATCHED[key] = self
        return TuneWatch(key)

    def running(self) -> None:
        """Tune has started: another benchmark's may."""
        self.when_running()

    def started(self, trial: Any) -> None:
        name, point = self._name(trial), self._point(trial)
        # What is known to come again is not tried again; Tune would, and without end where there is no limit.
        failed = read_failure(self._course.trials / name) is not None
        trial.max_failures = 0 if failed else self._course.config.max_failures
        with self._board.lock:
            self._standing.running.add(name)
        self._tracking.begin(name, point, self._phase)

    def stepped(self, trials: Iterable[Any]) -> None:
        """Tune has gone a step: what it has paused does not run."""
        with self._board.lock:
            self._standing.running = {self._name(trial) for trial in trials if trial.status == "RUNNING"}

    def reported(self, trial: Any, result: dict[str, Any]) -> None:
        self._tracking.ship(self._name(trial), int(result.get("step") or 0))
        if (score := result.get(FINAL, result.get(SCORE))) is not None:
            self._lead(float(score), self._point(trial), final=FINAL in result)
        self._news()

    def ended(self, trial: Any, failed: bool) -> None:
        name = self._name(trial)
        folder = self._course.trials / name
        if self._course.config.num_workers > 1:
            release(RunDir(folder))
        failure = (read_failure(folder) or _reason(trial)) if failed else None
        outcome = "failed" if failed else "finished" if (folder / SCORES).is_file() else "stopped"
        with self._board.lock:
            standing = self._standing
            standing.running.discard(name)
            standing.outcomes[name] = outcome
            best = standing.best
        self._outcomes[name] = outcome
        if failure:
            warn(
                f"{self._course.benchmark.name}: trial {name} ({in_words(self._point(trial).params)}) failed: {failure}"
            )
        self._tracking.end(name, outcome, failure)
        counts = Counter(self._outcomes.values())
        self._tracking.standing(best, {each: counts[each] for each in ("finished", "stopped", "failed")})
        if outcome != "failed":
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        if outcome == "stopped" and folder.is_dir():
            write_json(folder / STOPPED, {"epoch": (trial.last_result or {}).get(EPOCH)})
        if outcome == "finished" and self._phase == "search":
            self._clear_models()
        self._news()

    def _clear_models(self) -> None:
        """Keep the models of as many of the best configurations as may be finalists; the disk would not hold all.

        In a grid, those of a configuration whose seeds have not all ended, too: only then it is known how good it is.
        """
        assert self._course.job.choose is not None
        course = self._course
        ended = list(ended_trials(course.trials, course.metric, self._course.job.choose.split.name))
        kept = {one.digest for one in leaders(ended, course.finalists, course.searched_with)}
        for trial in ended:
            seeds = [replace(trial.point, seed=seed) for seed in course.searched_with]
            known = all(point.name in self._outcomes for point in seeds)
            if known and trial.point.configuration not in kept:
                shutil.rmtree(trial.folder / MODEL, ignore_errors=True)

    def _lead(self, score: float, point: Point, *, final: bool) -> None:
        with self._board.lock:
            self._standing.lead(score, in_words(point.params), final=final)

    def _point(self, trial: Any) -> Point:
        return point_of(trial.config.get(POINT_KEY) or trial.config, self._course.seeds[0])

    def _name(self, trial: Any) -> str:
        return f"member-{trial.trial_id}" if self._copies else self._point(trial).name


class TuneWatch(Callback):
    """The face that Tune sees. It is stored with the experiment, so it holds nothing but a name."""

    def __init__(self, key: str) -> None:
        self._key = key

    def setup(self, *told: Any, **info: Any) -> None:
        _WATCHED[self._key].running()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _WATCHED[self._key].started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        _WATCHED[self._key].reported(trial, result)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        _WATCHED[self._key].stepped(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _WATCHED[self._key].ended(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _WATCHED[self._key].ended(trial, failed=True)


def _reason(trial: Any) -> str:
    """Tune's own words for what ended a trial's process."""
    error = trial.get_error() if hasattr(trial, "get_error") else None
    lines = [line for line in str(error or "").splitlines() if line.strip()]
    if not lines and getattr(trial, "error_file", None) and Path(trial.error_file).is_file():
        lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "its process died (out of memory?)"
