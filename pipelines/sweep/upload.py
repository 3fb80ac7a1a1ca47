"""A sweep's copies in upload_dir, made by the driver, and the sweep fetched from there where its disk was lost.

    UPLOAD_DIR/SWEEP/
        in_use.json
        BENCHMARK/              run.json, result.json and the journal of the parent run
            trials/TRIAL/       as pipelines/upload/checkpoints.py says while it is trained, then as finished.py does

Tune's own state stays behind: it is pickled, and what lies in a store is not to run code. Searches that depend on what
has ended are told of the trials instead (`strategies.plan_of`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.console import say, warn
from pipelines.finetune.rundir import refuse_other
from pipelines.finetune.upload import fetch_unfinished
from pipelines.leaving import in_a_hurry
from pipelines.run_folder import CHECKPOINTS, RunDir
from pipelines.sweep.course import RESULT, TRIALS, Course
from pipelines.sweep.trials import COST, ENDINGS, POINT, has_ended
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pipelines.tracking.record import FILE_NAME as MLFLOW_RECORD
from pipelines.tracking.redact import redact
from pipelines.upload import checkpoints, finished, lease
from pipelines.upload.background import Uploads
from pipelines.upload.claim import check_record, may_be_away
from pmlm_core import storage
from pmlm_core.inside import leads_outside

_COMMAND = "pmlm sweep"
_BESIDE = (*checkpoints.BESIDE, POINT, COST)
_AT_A_TIME = 8


def home_of(course: Course) -> str:
    """Where the copies of the course's sweep lie."""
    assert course.config.upload_dir is not None
    return storage.join(storage.normalise(course.config.upload_dir), course.run.path.parent.name)


def _named_by(found: Sequence[Course]) -> Course:
    """Whose record tells this sweep's folder from another machine's, in whatever order benchmarks are given."""
    return min(found, key=lambda course: course.run.name)


def lease_of(found: Sequence[Course]) -> AbstractContextManager[None]:
    """One command at a time, where there is a place to upload to."""
    first = _named_by(found)
    return nullcontext() if first.config.upload_dir is None else lease.kept(first.run, home_of(first), _COMMAND)


def fetch(found: Sequence[Course]) -> None:
    """Fetch what the store has of these benchmarks and their folders lack: ended trials, newest checkpoints, results.

    Raises:
        ConfigError, CheckpointError: what lies there is another sweep's, or in use by another command; or there is
            nothing of the sweep here and the store is away.
    """
    first = _named_by(found)
    if first.config.upload_dir is None:
        return
    home = home_of(first)
    begun = any(course.trials.is_dir() for course in found)
    with may_be_away(home, first.config.upload_dir, can_do_without=begun, say=say):
        for course in found:
            there = storage.join(home, course.run.name)
            check_record(course.run, there, partial(_refuse_other, course, there))
        lease.take(first.run, home, _COMMAND, say)
        for course in found:
            _fetch_course(course, storage.join(home, course.run.name))


def _refuse_other(course: Course, there: str, known: dict[str, Any]) -> None:
    refuse_other(known["identity"], course.identity(), there)


def _fetch_course(course: Course, home: str) -> None:
    root = storage.join(home, TRIALS)

    def fetch_trial(name: str) -> str:
        run = RunDir(course.trials / name)
        if has_ended(run.path) or leads_outside([name]) is not None:
            return ""
        return fetch_unfinished(run, storage.join(root, name), course.job.task.metric, last=ENDINGS, beside=_BESIDE)

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        work = [pool.submit(copy_context().run, fetch_trial, name) for name in storage.folders_in(root)]
        came = [each.result() for each in work]
    if came.count("finished"):
        say(f"fetched {came.count('finished')} ended trials of {course.run.name} from {redact(home)}")
    wanted = [JOURNAL, MLFLOW_RECORD]
    if "damaged" not in came:  # else the result would be one of trials that are not there
        wanted.append(RESULT)
    names = set(storage.names_in(home))
    for name in wanted:
        if name in names and not (course.run.path / name).exists():
            draft = course.run.path / f".fetching-{name}"
            storage.fetch_file(storage.join(home, name), draft)
            draft.replace(course.run.path / name)


class News:
    """Called when there is something new to copy; afterwards it knows whether all of it got there."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake, self.all_there = wake, True

    def __call__(self) -> None:
        self._wake()


@contextmanager
def uploading(found: Sequence[Course]) -> Iterator[News]:
    """Copy the sweep whenever what is yielded is called, and at the end of the block."""
    first = found[0]
    if first.config.upload_dir is None:
        yield News()
        return
    home, sent = home_of(first), finished.Finished()
    ended: dict[Path, bool] = {}

    def mirror(told: Callable[[str], None]) -> list[str]:
        for course in found:
            there = storage.join(home, course.run.name)
            for folder in sorted(path for path in course.trials.glob("*") if path.is_dir()):
                _mirror_trial(folder, storage.join(there, TRIALS, folder.name), sent, ended, told)
            sent.send(course.run.path, there, below=False)  # the result last: it is one of these trials
        sent.send(first.run.path.parent, home, below=False)
        return []  # of each trial the board tells

    uploads = Uploads(mirror, home, lambda kind, text: warn(text) if kind == "warning" else say(text), "trials")
    news, done = News(uploads.wake), False
    try:
        yield news
        done = True
    finally:
        news.all_there = not in_a_hurry() and uploads.close(leaving=not done)


def _mirror_trial(
    folder: Path, home: str, sent: finished.Finished, ended: dict[Path, bool], told: Callable[[str], None]
) -> None:
    """`ended`: how each trial was found before; where that has changed, what the store has of the other kind goes."""
    before, ended[folder] = ended.get(folder), has_ended(folder)
    if ended[folder]:
        sent.send(folder, home)
        if not before:
            storage.remove_folder(storage.join(home, CHECKPOINTS))
        return
    if before is not False:  # it had failed, and is tried again
        storage.remove_file(storage.join(home, finished.MANIFEST))
    checkpoints.mirror(RunDir(folder), home, 1, told, beside=_BESIDE, best_first=True)
