"""`pmlm sweep`: settle every benchmark, encode once, search over Ray Tune, find the winners, register them."""

import json
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines import cluster
from pipelines.console import about, console, made, next_command, next_predict, say, warn
from pipelines.finetune.elsewhere import read_by
from pipelines.finetune.encode import encode_all
from pipelines.finetune.rundir import MODEL, REJECTS, check_same, open_record, read_scores, write_json
from pipelines.finetune.tell import tell_rows, warn_of_others
from pipelines.handover.serving import kept_folders
from pipelines.lock import locked
from pipelines.output_folder import check_output_dir
from pipelines.run_folder import RunDir
from pipelines.run_place import lies_in_store, named, worked_on_here
from pipelines.sweep import upload
from pipelines.sweep.board import Board, Standing
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import RESULT, Course, courses
from pipelines.sweep.scorers import check_scorers
from pipelines.sweep.trials import FAILURE
from pipelines.tracking.redact import redact, redacted
from pipelines.tracking.store import check_registers, is_off
from pipelines.upload.claim import check_arrived
from pmlm_core import storage
from pmlm_core.errors import PmlmError, TrainingError

_LINE_EVERY_S = 30.0
_CLOSING_S = 30.0
"""So long a signal waits for a benchmark that has its result; the next command does what it did not come to."""
SWEEP_FILE = "sweep.json"
"""Options of the newest command, in the sweep's folder."""


def run(config: SweepConfig) -> None:
    """Sweep, or go on with it, or say that it is done.

    Raises:
        ConfigError: options contradict each other, the checkpoint, the files, or the sweep in that folder.
        DataError: files are missing or unusable.
        TrainingError: no trial of a benchmark came to its end.
    """
    check_registers(config.register_model, config.tracking_uri)
    config = worked_on_here(config)
    check_output_dir(config.output_dir)
    found, rejects = courses(config)
    sweep = found[0].run.path.parent
    sweep.mkdir(parents=True, exist_ok=True)
    with locked(sweep, "pmlm sweep"), upload.lease_of(found):
        known = [
            open_record(course.run, course.identity(), {"source": course.job.source.described()}) for course in found
        ]
        upload.fetch(found)
        if config.retry_failed:
            for course in found:
                for path in course.trials.glob(f"*/{FAILURE}"):
                    path.unlink()
        write_json(sweep / SWEEP_FILE, redacted(asdict(config)))
        for course, left_out in zip(found, rejects, strict=True):
            with about(course.benchmark.name):
                tell_rows(course.job, left_out, written=True)
            storage.write_lines(str(course.run.path / REJECTS), left_out.lines())
        say(f"{'sweep' if all(known) else 'new sweep'} {sweep.name}: everything in {named(config, sweep)}")
        if lies_in_store(config):
            say(f"worked on in {sweep}")
        results = {course.benchmark.name: result for course in found if (result := _finished(course, config))}
        left, failure = [course for course in found if course.benchmark.name not in results], None
        for course in left:
            check_scorers(course)
        with upload.uploading(found) as news:
            from pipelines.sweep.ending import end_again

            for course in found:
                if (name := course.benchmark.name) in results:
                    _tell_swept(course, results[name])
                    end_again(course, results[name])
            if left:
                reads = {path for course in left for path in read_by(course.job)}
                folders = [course.run.path for course in left]
                with (
                    cluster.connected(),
                    kept_folders(folders, sorted(reads), wanted=cluster.is_remote()) as keeper,
                ):
                    from pipelines.sweep.plan import check_fits

                    check_fits(config)
                    more, failure = _sweep([_encoded(course) for course in left], config, news, keeper)
                    results |= more
        check_arrived(config, news.all_there)
        _conclude([course for course in found if course.benchmark.name in results], results, config)
        if failure is not None:
            raise failure


def dry_run(config: SweepConfig) -> None:
    """Say what `run` would do and what it would take; nothing is written.

    Raises:
        ConfigError, DataError: as `run`.
    """
    from pipelines.sweep.plan import describe

    check_registers(config.register_model, config.tracking_uri)
    config = worked_on_here(config)
    check_output_dir(config.output_dir)
    found, rejects = courses(config)
    for course, left_out in zip(found, rejects, strict=True):
        check_same(course.run, course.identity())
        with about(course.benchmark.name):
            tell_rows(course.job, left_out, written=False)
    left = []
    for course in found:
        if (result := _finished(course, config)) is None:
            left.append(course)
        else:
            _tell_swept(course, result)
    if not left:
        say(f"all of {named(config, found[0].run.path.parent)} is finished: nothing is left to search")
        return
    if config.gpus_per_trial:
        cluster.tell_missing_gpu()
    for line in describe(left):
        say(line)


def _finished(course: Course, config: SweepConfig) -> dict[str, Any] | None:
    """The result of a sweep that has nothing left to do, None otherwise."""
    try:
        result = json.loads((course.run.path / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("complete") and not config.retry_failed else None


def _tell_swept(course: Course, result: Mapping[str, Any]) -> None:
    name, winner = course.benchmark.name, course.trials / result["winner"]["trial"]
    say(f"{name} is finished: it was swept before")
    if scores := read_scores(RunDir(winner)):
        warn_of_others(course.job, scores, f"the winner of {name}", named(course.config, winner / MODEL))


def _encoded(course: Course) -> Course:
    return replace(course, job=encode_all(course.job))


def _sweep(
    all_courses: Sequence[Course], config: SweepConfig, news: upload.News, keeper: str | None
) -> tuple[dict[str, dict[str, Any]], TrainingError | None]:
    """Every benchmark in a thread of its own: they share the cluster, and none waits for another's last trial.

    Args:
        news: called when there is something to be uploaded.
        keeper: of this machine, for nodes that do not see its folders.

    Returns:
        Results by benchmark, and what to raise if a benchmark came to nothing.
    """
    from pipelines.sweep.benchmark_sweep import BenchmarkSweep
    from pipelines.sweep.ending import end
    from pipelines.sweep.room import leave, share
    from pipelines.sweep.tracking import SweepTracking

    board = Board(Standing(course.benchmark.name, course.metric) for course in all_courses)
    trackings = {course.benchmark.name: SweepTracking(course) for course in all_courses}
    unclosed = set(trackings)
    share(trackings)
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, BaseException] = {}
    lock = threading.Lock()

    def closes(name: str) -> bool:
        """Whether the caller is the one to close the benchmark's run: its own thread, or a signal that came before."""
        with lock:
            first = name in unclosed
            unclosed.discard(name)
            return first

    def work(course: Course) -> None:
        name = course.benchmark.name
        try:
            results[name] = BenchmarkSweep(course, board, trackings[name], news, keeper).run()
        except BaseException as error:
            failures[name] = error
            board.failed(name)
            warn(f"the sweep of {name} has ended without a result: {_words(name, error)}")
            leave(name)
            if closes(name):
                trackings[name].close("FAILED", None, _words(name, error))
            return
        leave(name)
        try:
            if closes(name):
                end(course, results[name], trackings[name])
        except Exception as error:
            failures[name] = error
        news()

    threads = [
        threading.Thread(target=work, args=(each,), name=each.benchmark.name, daemon=True) for each in all_courses
    ]
    try:
        for thread in threads:
            thread.start()
        _show(board, threads)
    except KeyboardInterrupt:
        with ExitStack() as ending:  # a signal ends one wait for MLflow, not those of the other benchmarks
            for thread in threads:
                if closes(thread.name):
                    ending.callback(trackings[thread.name].close, "KILLED", None)
                    ending.callback(trackings[thread.name].interrupt)
                else:
                    ending.callback(thread.join, _CLOSING_S)
        raise
    said = [_words(name, each) for name, each in failures.items()]
    error = TrainingError("; ".join(said)) if said else None
    if error is not None:
        error.__cause__ = next(iter(failures.values()))
    return results, error


def _words(name: str, error: BaseException) -> str:
    return str(error) if isinstance(error, PmlmError) else f"the sweep of {name} met {type(error).__name__}: {error}"


def _show(board: Board, threads: Sequence[threading.Thread]) -> None:
    """The live table while the threads work; in a log, a line now and then."""
    if console().is_terminal:
        from rich.live import Live

        with Live(board.table(), console=console(), refresh_per_second=1) as live:
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.5)
                live.update(board.table())
        return
    shown, at = "", time.monotonic()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        line = board.line()
        if line != shown and time.monotonic() - at >= _LINE_EVERY_S:
            say(line)
            shown, at = line, time.monotonic()
    if board.line() != shown:
        say(board.line())


def _conclude(all_courses: Sequence[Course], results: dict[str, dict[str, Any]], config: SweepConfig) -> None:
    """Say where everything is, and what to do with it."""
    for course in all_courses:
        folder = course.trials / results[course.benchmark.name]["winner"]["trial"]
        made("result", named(config, course.run.path / RESULT))
        if (folder / MODEL).is_dir():
            model = named(config, folder / MODEL)
            made("winner's model", model)
            next_predict(model)
    if all_courses:
        next_command(_to_compare(all_courses[0].run.path.parent, config))


def _to_compare(sweep: Path, config: SweepConfig) -> str:
    """The `pmlm compare` that finds the trials: in the MLflow that they were sent to, or in their folder."""
    words, store = ["pmlm", "compare"], config.tracking_uri
    if is_off(store):
        return shlex.join([*words, "--folders", named(config, sweep)])
    words += ["--sweep", sweep.name]
    if store is None:
        return shlex.join(words)
    if redact(store) != store:  # what is printed is kept in logs
        return f"{shlex.join(words)} (with MLFLOW_TRACKING_URI set to the sweep's --tracking_uri, which holds a secret)"
    return shlex.join([*words, "--tracking_uri", store])
