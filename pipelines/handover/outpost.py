"""A training worker whose machine does not see the run's folder: it works in a folder of its own disk.

What it writes there goes to the driver's folder as it comes: events and figures every half second, a checkpoint when it
is whole, the rest at the end. What the driver has, it fetches: the checkpoint to go on from, and whether to leave.
"""

import contextlib
import hashlib
import threading
import uuid
from collections.abc import Collection, Iterator

from pipelines.handover import files, sending
from pipelines.handover.serving import sees
from pipelines.handover.standin import standin
from pipelines.leaving import Request
from pipelines.run_folder import CHECKPOINTS, EVENTS_FILE, RUN_FILE, RunDir
from pipelines.tracking.journal import FILE_NAME as JOURNAL
from pmlm_core import storage
from pmlm_core.addresses import path_in
from pmlm_core.errors import PmlmError

_EVERY_S = 0.5


class Outpost:
    """Where a worker works: the run's own folder, or one that stands in for it."""

    def __init__(self, run: RunDir, ending: Collection[str] = ()) -> None:
        """
        Args:
            run: the folder to work in; with a `home` it stands in for that.
            ending: files of which one says that nothing is trained any more: they go last, checkpoints are removed.
        """
        self.run, self._ending = run, ending

    def flush(self) -> None:
        """Hand over events, figures and what was met.

        Raises:
            OSError: the driver's machine does not answer, or refuses.
        """

    def deliver(self) -> None:
        """Hand over all that has come of the training.

        Raises:
            OSError: as `flush`.
        """

    def counts(self) -> bool:
        """Whether this worker was not given up for another: what it meets is of no interest then."""
        return True


class _Away(Outpost):
    """One in a folder that stands in."""

    def __init__(self, run: RunDir, attempt: str, leads: bool, ending: Collection[str]) -> None:
        super().__init__(run, ending)
        assert run.home is not None
        self._home, self._leads = run.home, leads
        self._failure, self._request = run.failure_of(attempt), Request(run.leaving_of(attempt))
        self._events = sending.Lines(run.path / EVENTS_FILE, self._at(EVENTS_FILE))
        self._words = sending.Lines(self._request.path, self._at(self._request.path.name))
        self._journal = sending.Journal(run.path / JOURNAL, self._at(JOURNAL))
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pmlm-outpost", daemon=True)

    def _at(self, name: str) -> str:
        return storage.join(self._home, name)

    def begin(self) -> None:
        """Fetch what a worker looks at when it starts."""
        names = set(storage.names_in(self._home))
        wanted = [RUN_FILE, self._failure.name, *([JOURNAL] if self._leads else [])]
        for name in wanted:
            if name in names:
                storage.fetch_file(self._at(name), self.run.path / name)
        self._journal.sent_so_far()
        self._thread.start()

    def end(self) -> None:
        """Hand over what was written since, such as why it ends, if there is somebody to take it."""
        self._ended.set()
        self._thread.join(60.0)
        with contextlib.suppress(OSError, PmlmError), storage.patient_for(0):
            self.flush()

    def flush(self) -> None:
        with self._one_at_a_time:
            self._events.send()
            if self._leads:
                self._journal.send()
                self._words.send()
            if self._failure.exists():
                sending.create(self._failure, self._at(self._failure.name))

    def deliver(self) -> None:
        self.flush()
        if self._leads:
            sending.Folder(self.run.path, self._home).send(last=self._ending)
            if any((self.run.path / name).exists() for name in self._ending):
                storage.remove_folder(self._at(CHECKPOINTS))

    def counts(self) -> bool:
        return not self._leads or files.kept(self._home).renew(path_in(self._home))

    def _work(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with contextlib.suppress(OSError, PmlmError), storage.patient_for(0):  # the next time, or the end, has it
                self.flush()
                if self._leads and not self._request.is_asked():
                    self._look_whether_asked()

    def _look_whether_asked(self) -> None:
        said = storage.read_bytes(self._at(self._request.path.name)).decode()
        if Request.asks(said):
            with self._one_at_a_time:
                self._words.skip(self._request.ask)


@contextlib.contextmanager
def opened(
    run: RunDir, attempt: str, leads: bool, keeper: str | None, ending: Collection[str] = (), group: str = ""
) -> Iterator[Outpost]:
    """Where this process works for the time of the block.

    Args:
        run: the driver's folder.
        keeper: of the driver's machine; None where every worker sees its folders.
        group: names the workers that were started together; those of a group before may live on.
    """
    if keeper is None:
        yield Outpost(run, ending)
        return
    home = files.address(keeper, holder := uuid.uuid4().hex[:12], run.path)
    if leads:  # Ray has given up whoever was here before
        files.kept(home).hold(str(run.path), at_once=True)
    if sees(run.path, keeper):
        yield Outpost(run, ending)
        return
    key = hashlib.sha256(f"{keeper} {run.path} {group}".encode()).hexdigest()[:16]
    with standin(key) as shared:
        mine = shared / holder
        mine.mkdir()
        (shared / CHECKPOINTS).mkdir(exist_ok=True)
        (mine / CHECKPOINTS).symlink_to(shared / CHECKPOINTS)  # fetched once for all workers of this machine
        post = _Away(RunDir(mine, home), attempt, leads, ending)
        post.begin()
        try:
            yield post
        finally:
            post.end()
