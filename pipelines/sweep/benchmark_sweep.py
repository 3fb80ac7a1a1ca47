"""One benchmark's sweep from search to winner, over a connected Ray; runs in a thread of its own beside the others."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipelines.console import say, warn
from pipelines.finetune.job import Job, Part
from pipelines.finetune.rundir import SCORES, write_json
from pipelines.sweep.board import Board, in_words
from pipelines.sweep.choose import Configuration, finals, leaders, ranked, winner
from pipelines.sweep.complete import complete_winner, finished_job
from pipelines.sweep.course import RESULT, Course
from pipelines.sweep.strategies import Plan, every, plan_of
from pipelines.sweep.tracking import SweepTracking, run_id_of
from pipelines.sweep.trial import Told, has_all, trial
from pipelines.sweep.trials import Ended, Point, ended_trials, known_trials
from pipelines.sweep.tune_run import fit, one_at_a_time
from pipelines.sweep.watch import Watch
from pmlm_core.errors import TrainingError

_FINALS = 4
"""How often, at the most, a winner without a model has finalists trained."""


class BenchmarkSweep:
    """Runs one course."""

    def __init__(
        self,
        course: Course,
        board: Board,
        tracking: SweepTracking,
        news: Callable[[], None],
        keeper: str | None = None,
    ) -> None:
        """
        Args:
            news: called when there is something to be uploaded.
            keeper: of this machine, for nodes that do not see its folders.
        """
        self._course, self._tracking, self._keeper = course, tracking, keeper
        self._watch = Watch(course, board, tracking, news)

    def run(self) -> dict[str, Any]:
        """Search, final, winner; returns what `result.json` holds.

        Raises:
            TrainingError: every trial failed.
        """
        course = self._course
        for earlier in self._ended():
            self._tracking.catch_up(earlier.folder)
        known = known_trials(course.trials, course.metric, self._split)
        plan = plan_of(course, [each for each in known if each.point.seed in course.searched_with])
        search = self._told("search", plan)
        self._fit("search", plan, search, course.num_samples)
        ended = self._ended()
        if not ended:
            raise TrainingError(f"{course.benchmark.name}: no trial came to its end; their reasons are above")
        ended, best = self._final(ended) if course.finalists else (ended, winner(ended, course.seeds, 0))
        assert best is not None
        write_json(course.run.path / RESULT, self._result(best, ended))
        self._complete(best)
        result = {**self._result(best, self._ended()), "complete": True}
        write_json(course.run.path / RESULT, result)
        return result

    def _final(self, ended: list[Ended]) -> tuple[list[Ended], Configuration | None]:
        """Train the finalists with every seed; returns all trials then, and the winner.

        One whose model was removed is trained again, and on a GPU may be worse than before. Then another wins, whose
        model may have been removed, too: so again, until the winner has one.
        """
        course, wanted = self._course, frozenset[str]()
        for _ in range(_FINALS):
            best_ones = leaders(ended, course.finalists, course.searched_with)
            wanted |= {one.best.folder.name for one in best_ones}
            points = finals(best_ones, course.seeds)
            plan = every(course, points)
            self._fit("finalists", plan, self._told("finalists", plan, wanted), len(points), points)
            ended = self._ended()
            best = winner(ended, course.seeds, course.finalists)
            if best is None or best.best.has_model:
                break
            wanted |= {best.best.folder.name}
        return ended, best

    def _ended(self) -> list[Ended]:
        return list(ended_trials(self._course.trials, self._course.metric, self._split))

    @property
    def _split(self) -> str:
        assert self._course.job.choose is not None
        return self._course.job.choose.split.name

    def _told(self, phase: str, plan: Plan, wants_model: frozenset[str] = frozenset()) -> Told:
        """What trials of a phase are told; a search predicts only the split that it chooses by."""
        course = self._course
        config = course.config
        labelled = course.job.task.labelled if phase == "finalists" else (self._split,)
        base = replace(course.job, final=_parts(course.job, labelled))
        # Several workers hold CPUs of their own; the trial, which only starts and follows them, asks for next to none.
        cpus = config.cpus_per_trial * config.num_workers
        return Told(
            base, course.trials, course.metric, course.seeds[0], cpus, config.gpus_per_trial * config.num_workers,
            course.schedule, copies=plan.copies, keeps_place=plan.keeps_place, wants_model=wants_model,
            keeper=self._keeper,
        )  # fmt: skip

    def _fit(self, phase: str, plan: Plan, told: Told, total: int, points: Sequence[Point] | None = None) -> None:
        known = self._ended()
        done = {each.folder.name for each in known if has_all(each, told)}
        if points is not None:
            done &= {point.name for point in points}
        else:  # finalists' other seeds are not the search's
            done &= {each.folder.name for each in known if each.point.seed in self._course.searched_with}
        callback = self._watch.begin(phase, total, plan.copies, known, done)
        with one_at_a_time() as started:
            self._watch.when_running = started
            fit(self._course, phase, plan, trial, told, callback)

    def _complete(self, best: Configuration) -> None:
        """Let the winner predict what no trial has: splits without labels, for the benchmark's own server."""
        import ray

        course, chosen = self._course, best.best
        base = replace(course.job, final=_parts(course.job, course.job.task.splits))
        if not chosen.has_model:
            warn(f"{course.benchmark.name}: the model was removed from {chosen.folder}, so nothing more is predicted")
            return
        job = finished_job(base, chosen.folder, chosen.point.params, chosen.point.seed)
        config = course.config
        remote = ray.remote(complete_winner).options(num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial)
        try:
            ray.get(remote.remote(job, config.cpus_per_trial, config.gpus_per_trial, self._keeper))
        except Exception as error:  # the winner stands without them
            text = " ".join(str(error).split())[-300:]
            warn(f"{course.benchmark.name}: the winner could not predict the splits without labels: {text}")
        self._tracking.update(chosen.folder)

    def _result(self, best: Configuration, ended: Sequence[Ended]) -> dict[str, Any]:
        course = self._course
        rows = [
            {
                "configuration": one.digest,
                "params": one.params,
                "mean": one.mean,
                "stdev": one.stdev,
                "seeds": {str(each.point.seed): each.score for each in one.trials},
                "seconds": sum(each.seconds for each in one.trials),
            }
            for one in ranked(ended)
        ]
        chosen = best.best
        scored = json.loads((chosen.folder / SCORES).read_text(encoding="utf-8"))
        return {
            "benchmark": course.benchmark.name,
            "task": course.benchmark.task,
            "strategy": course.config.strategy,
            "metric": course.metric,
            "split": self._split,
            "winner": {
                "configuration": best.digest,
                "params": best.params,
                "mean": best.mean,
                "median": best.median,
                "stdev": best.stdev,
                "seeds": {str(each.point.seed): each.score for each in best.trials},
                "trial": chosen.folder.name,
                "run_id": run_id_of(chosen.folder),
                "scores": scored["scores"],
            },
            "baseline": scored.get("baselines", {}).get(self._split),
            "configurations": rows,
            "model": course.job.source.described(),
        }


def _parts(job: Job, splits: Sequence[str]) -> tuple[Part, ...]:
    return tuple(part for part in job.final if part.split.name in splits)


def tell(result: dict[str, Any]) -> None:
    """Print what won."""
    won = result["winner"]
    seeds = len(won["seeds"])
    spread = f" +- {won['stdev']:.2f} over {seeds} seeds" if seeds > 1 else " (one seed)"
    say(
        f"{result['benchmark']}: {result['metric']} {won['mean']:.2f}{spread} on '{result['split']}', "
        f"with {in_words(won['params'])}; {len(result['configurations'])} configurations came to their end"
    )
    if baseline := result.get("baseline"):
        say(f"  the baseline, {baseline['what']}, has {baseline['scores'][result['metric']]:.2f}")
    most = max(score for each in result["configurations"] for score in each["seeds"].values())
    if seeds > 1 and most > won["mean"]:
        say(f"  the best single trial had {most:.2f}; configurations are ranked by their mean over seeds")
