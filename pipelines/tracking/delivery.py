"""Carry a run from its journal to MLflow, so that every figure arrives once.

Each figure has a last step sent. It is asked of the server at the first contact and counted from there, so neither a
crash between sending and noting it, nor a resumed run that repeats steps, sends a step twice. Every call may raise; the
sink repeats it.
"""

import os
import threading
from pathlib import Path
from typing import Any

from pipelines.tracking import journal
from pipelines.tracking.record import Record
from pipelines.tracking.redact import redact
from pipelines.tracking.store import open_store

_METRICS_A_CALL = 900  # MLflow takes 1000 a call
_PARAMS_A_CALL = 90  # and 100 parameters or tags
_VALUE_LENGTH = 5000
RUN_KEY_TAG = "pmlm.run_key"


class Delivery:
    """One run's way to one MLflow store."""

    def __init__(self, run_dir: str | os.PathLike[str], uri: str, record: Record) -> None:
        self._run_dir = Path(run_dir)
        self._uri = uri
        self.record = record
        self._client: Any = None
        self._inode, self._offset = -1, 0
        self._status_there = ""
        self._saving, self._closed = threading.Lock(), False

    def close(self) -> None:
        """Leave the record on disk to others from now on, even if a call of `deliver` comes back late."""
        with self._saving:
            self._closed = True

    def _save(self) -> None:
        with self._saving:
            if not self._closed:
                self.record.save(self._run_dir)

    def deliver(self, up_to_step: int) -> int:
        """Send every figure of steps up to `up_to_step` and the run's status; return how many figures went."""
        if self._client is None:
            self._connect()
        sent = self._send_figures(up_to_step)
        if self.record.status != self._status_there:
            if self.record.status == "RUNNING":
                self._client.update_run(self.record.run_id, status="RUNNING")
            else:
                self._client.set_terminated(self.record.run_id, status=self.record.status)
            self._status_there = self.record.status
        return sent

    def forget_connection(self) -> None:
        """After a failure, look at the server anew: it may have restarted, or taken a batch without answering."""
        self._client = None

    def _connect(self) -> None:
        client, experiment = open_store(self._uri, self.record.experiment)
        run = self._find_run(client, experiment) or self._create_run(client, experiment)
        self._send_params(client, run)
        self._status_there = run.info.status
        there = {metric.key: metric.step for metric in getattr(run.data, "_metric_objs", None) or []}
        for name, step in there.items():
            self.record.shipped[name] = max(step, self.record.shipped.get(name, step))
        self._save()
        self._inode = -1
        self._client = client

    def _find_run(self, client: Any, experiment: str) -> Any:
        from mlflow.exceptions import MlflowException

        if self.record.run_id:
            try:
                return client.get_run(self.record.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self.record.run_id, self.record.shipped = None, {}  # another store, or one that was emptied
        # A creation whose answer was lost left a run behind: take that one.
        found = client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{self.record.run_key}'", max_results=1)
        return self._adopt(found[0]) if found else None

    def _create_run(self, client: Any, experiment: str) -> Any:
        tags = {RUN_KEY_TAG: self.record.run_key} | {n: v[:_VALUE_LENGTH] for n, v in self.record.tags.items()}
        return self._adopt(client.create_run(experiment, run_name=self.record.run_name, tags=tags))

    def _adopt(self, run: Any) -> Any:
        self.record.run_id = run.info.run_id
        self._save()
        return run

    def _send_params(self, client: Any, run: Any) -> None:
        """Send parameters not there yet; MLflow never changes one, so a resumed run's new value goes into a tag."""
        from mlflow.entities import Param, RunTag

        wanted = {_name(name): redact(value)[:_VALUE_LENGTH] for name, value in self.record.params.items()}
        missing = [Param(name, value) for name, value in wanted.items() if name not in run.data.params]
        changed = {f"resumed.{n}": v for n, v in wanted.items() if run.data.params.get(n, v) != v}
        tags = {_name(name): redact(value)[:_VALUE_LENGTH] for name, value in (changed | self.record.tags).items()}
        new_tags = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        for start in range(0, len(missing), _PARAMS_A_CALL):
            client.log_batch(run.info.run_id, params=missing[start : start + _PARAMS_A_CALL])
        for start in range(0, len(new_tags), _PARAMS_A_CALL):
            client.log_batch(run.info.run_id, tags=new_tags[start : start + _PARAMS_A_CALL])

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


def _name(name: str) -> str:
    """Make a name one that every MLflow store takes: letters, digits, and `_-. /`."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]
