"""Carry a run from its journal to MLflow, so that every figure arrives once.

Each figure has a last step sent. It is asked of the server at the first contact and counted from there, so neither a
crash between sending and noting it, nor a resumed run that repeats steps, sends a step twice. Every call may raise; the
sink repeats it. A run that is part of another is created once that one is there, so that it is never seen without it.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.tracking import journal
from pipelines.tracking.record import FILE_NAME, Record, seen_from
from pipelines.tracking.redact import redact
from pipelines.tracking.store import Deleted, is_deleted, open_store

_METRICS_A_CALL = 900  # MLflow takes 1000 a call
_PARAMS_A_CALL = 90  # and 100 parameters or tags
_VALUE_LENGTH = 5000
RUN_KEY_TAG = "pmlm.run_key"
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own: its pages show such runs below their parent


class WaitsForParent(Exception):
    """The run that this one is part of is not in MLflow yet."""


class Delivery:
    """One run's way to one MLflow store."""

    def __init__(self, run_dir: str | os.PathLike[str], uri: str, record: Record) -> None:
        self._run_dir = Path(run_dir)
        self._uri = uri
        self.record = record
        self._client: Any = None
        self._inode, self._offset = -1, 0
        self._status_there = ""
        self._tags_there: dict[str, str] = {}
        self._own_tags: dict[str, str] = {}
        self._saving, self._closed = threading.Lock(), False

    def close(self) -> None:
        """Leave the record on disk to others from now on, even if a call of `deliver` comes back late."""
        with self._saving:
            self._closed = True

    def _save(self) -> None:
        with self._saving:
            if not self._closed:
                self.record.save(self._run_dir)

    def tag(self, tags: Mapping[str, str], run_tags: Mapping[str, str]) -> None:
        """Add tags to the record, from any thread; the next `deliver` sends them.

        Args:
            run_tags: as in the record.

        Raises:
            OSError: the record cannot be written.
        """
        # New dictionaries: another thread may be walking through the old ones.
        self.record.tags = {**self.record.tags, **tags}
        self.record.run_tags = {**self.record.run_tags, **run_tags}
        self._save()

    @property
    def tags(self) -> dict[str, str]:
        """All tags asked for so far."""
        return self.record.tags | self.record.run_tags

    def deliver(self, up_to_step: int) -> int:
        """Send tags, every figure of steps up to `up_to_step` and the run's status; return how many figures went.

        Raises:
            WaitsForParent: the run that this one is part of has to be sent before.
            Deleted: the run or its experiment was, in MLflow.
        """
        try:
            return self._deliver(up_to_step)
        except Exception as error:
            if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":  # so MLflow says that a run was deleted
                self._connect()
            raise

    def _deliver(self, up_to_step: int) -> int:
        if self._client is None:
            self._connect()
        self._send_tags()
        sent = self._send_figures(up_to_step)
        status = self.record.status  # another thread may end the run during these calls
        if status != self._status_there:
            if status == "RUNNING":
                self._client.update_run(self.record.run_id, status="RUNNING")
            else:
                self._client.set_terminated(self.record.run_id, status=status)
            self._status_there = status
        return sent

    def forget_connection(self) -> None:
        """After a failure, look at the server anew: it may have restarted, or taken a batch without answering."""
        self._client = None

    def _connect(self) -> None:
        parent = self._parent_id()
        client, experiment = open_store(self._uri, self.record.experiment)
        if parent is not None:
            _check_there(client, parent)
        self._own_tags = {} if parent is None else {PARENT_TAG: parent}
        run = self._find_run(client, experiment) or self._create_run(client, experiment)
        self._send_params(client, run)
        self._status_there, self._tags_there = run.info.status, dict(run.data.tags)
        there = {metric.key: metric.step for metric in getattr(run.data, "_metric_objs", None) or []}
        shipped = self.record.shipped
        self.record.shipped = shipped | {name: max(step, shipped.get(name, step)) for name, step in there.items()}
        self._save()
        self._inode = -1
        self._client = client

    def _parent_id(self) -> str | None:
        folder = self.record.parent_of(self._run_dir)
        if folder is None:
            return None
        record = Record.load(folder)
        if record is None or record.run_id is None:
            raise WaitsForParent(f"the run it is part of, in {folder}, has not reached MLflow yet")
        return record.run_id

    def _find_run(self, client: Any, experiment: str) -> Any:
        from mlflow.exceptions import MlflowException

        if self.record.run_id:
            try:
                return self._not_deleted(client.get_run(self.record.run_id))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self.record.run_id, self.record.shipped = None, {}  # another store, or one that was emptied
        # A creation whose answer was lost left a run behind: take that one.
        found = client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{self.record.run_key}'", max_results=1)
        return self._adopt(found[0]) if found else None

    def _not_deleted(self, run: Any) -> Any:
        if is_deleted(run.info):
            raise Deleted(
                f"run {run.info.run_id} was deleted in MLflow; to have it back: mlflow runs restore --run-id "
                f"{run.info.run_id}. To have it sent as a new one where its command still has steps to do, remove "
                f"{self._run_dir / FILE_NAME} before you give that again"
            )
        return run

    def _create_run(self, client: Any, experiment: str) -> Any:
        tags = {RUN_KEY_TAG: self.record.run_key, **_clean(self.record.tags | self._own_tags)}
        return self._adopt(client.create_run(experiment, run_name=self.record.run_name, tags=tags))

    def _adopt(self, run: Any) -> Any:
        self.record.run_id = run.info.run_id
        self._save()
        return run

    def _send_params(self, client: Any, run: Any) -> None:
        """Send parameters not there yet; MLflow never changes one, so a resumed run's new value goes into a tag."""
        from mlflow.entities import Param

        wanted = _clean(self.record.params)
        missing = [Param(name, value) for name, value in wanted.items() if name not in run.data.params]
        self._own_tags |= {f"resumed.{n}": v for n, v in wanted.items() if run.data.params.get(n, v) != v}
        for start in range(0, len(missing), _PARAMS_A_CALL):
            client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS_A_CALL])

    def _send_tags(self) -> None:
        """Send tags that are not there yet, or have another value there."""
        from mlflow.entities import RunTag

        wanted = _clean(self._own_tags | self.record.tags | self._run_ids())
        new = {name: value for name, value in wanted.items() if self._tags_there.get(name) != value}
        tags = [RunTag(name, value) for name, value in new.items()]
        for start in range(0, len(tags), _PARAMS_A_CALL):
            self._client.log_batch(self.record.run_id, tags=tags[start : start + _PARAMS_A_CALL])
        self._tags_there |= new

    def _run_ids(self) -> dict[str, str]:
        """Tags that name other runs, as far as those have an id."""
        records = {name: Record.load(seen_from(self._run_dir, each)) for name, each in self.record.run_tags.items()}
        return {name: record.run_id for name, record in records.items() if record and record.run_id}

    def _send_figures(self, up_to_step: int) -> int:
        from mlflow.entities import Metric

        path = self._run_dir / journal.FILE_NAME
        if path.exists():
            status = path.stat()
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset = status.st_ino, 0  # a resumed run cut it and put a new file in place
        sent, batch_end = 0, self._offset
        batch: list[Any] = []
        latest = dict(self.record.shipped)
        for entry, end in journal.read(path, self._offset):
            if entry.step > up_to_step:
                break
            fresh = {name: value for name, value in entry.metrics.items() if entry.step > latest.get(_name(name), -1)}
            if len(batch) + len(fresh) > _METRICS_A_CALL and batch:
                sent += self._send_batch(batch, latest, batch_end)
                batch = []
            for name, value in fresh.items():
                batch.append(Metric(_name(name), value, round(entry.time * 1000), entry.step))
                latest[_name(name)] = entry.step
            batch_end = end
        if batch:
            sent += self._send_batch(batch, latest, batch_end)
        self._offset = batch_end
        return sent

    def _send_batch(self, batch: list[Any], latest: dict[str, int], end: int) -> int:
        self._client.log_batch(self.record.run_id, metrics=batch)
        self._offset = end
        self.record.shipped = dict(latest)
        self._save()
        return len(batch)


def _check_there(client: Any, run_id: str) -> None:
    """Raise WaitsForParent if the store does not know this run: another store, or one that was emptied."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise WaitsForParent(f"the run it is part of, {run_id}, is not in this store yet") from None


def _clean(values: Mapping[str, str]) -> dict[str, str]:
    """Parameters or tags as every store takes them, without secrets."""
    return {_name(name): redact(value)[:_VALUE_LENGTH] for name, value in values.items()}


def _name(name: str) -> str:
    """Make a name one that every MLflow store takes: letters, digits, and `_-. /`."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]
