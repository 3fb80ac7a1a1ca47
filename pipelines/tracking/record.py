"""What a run knows of its life in MLflow: `mlflow.json` beside the journal.

It holds everything needed to create the run later, should the server be away now, and how far each figure was sent.
The address is kept without user and password; `pmlm sync` takes the full one from MLFLOW_TRACKING_URI.
"""

import dataclasses
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from pmlm_core.errors import DataError

FILE_NAME = "mlflow.json"


@dataclass
class Record:
    """One run in MLflow; `shipped` is the last step sent of each figure, `run_key` finds the run if its id was lost."""

    tracking_uri: str
    experiment: str
    run_name: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    run_key: str = field(default_factory=lambda: uuid.uuid4().hex)
    run_id: str | None = None
    shipped: dict[str, int] = field(default_factory=dict)
    status: str = "RUNNING"
    pending_model: dict[str, str] | None = None
    registered: dict[str, str] | None = None
    """The model made of this run: name, checkpoint, and the "NAME version N" that MLflow answered."""
    pending_artifacts: list[str] = field(default_factory=list)
    """Files to be sent, relative to the run's folder."""
    sent_artifacts: list[str] = field(default_factory=list)
    """Those that have arrived, of the last that were to be sent."""
    delivered: bool = False
    """Whether everything has arrived, the final status included."""
    parent: str | None = None
    """Folder of the run that this one is part of, seen from this run's folder, so that both may be moved together."""
    run_tags: dict[str, str] = field(default_factory=dict)
    """Tags whose value is the run id of another run: name -> its folder, seen from this run's."""

    @classmethod
    def load(cls, run_dir: str | os.PathLike[str]) -> "Record | None":
        """Read the record of a run, None if it has none.

        Raises:
            DataError: the file is there but cannot be read.
        """
        path = Path(run_dir) / FILE_NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(**raw)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({error}); remove it, and the run is sent to MLflow anew from the journal"
            ) from None

    def save(self, run_dir: str | os.PathLike[str]) -> None:
        """Write the record whole or not at all, forced to disk: a lost power supply leaves no empty one."""
        path = Path(run_dir) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{FILE_NAME}.{uuid.uuid4().hex}.new")  # threads of one process must not share it
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def parent_of(self, run_dir: str | os.PathLike[str]) -> Path | None:
        """Folder of the run that the one in `run_dir` is part of."""
        return None if self.parent is None else seen_from(run_dir, self.parent)

    def has_registered(self, name: str, checkpoint: Path) -> bool:
        """Whether this checkpoint is registered as model `name` already."""
        known = self.registered or {}
        return known.get("name") == name and Path(known.get("checkpoint", "")).name == checkpoint.name


def seen_from(run_dir: str | os.PathLike[str], folder: str) -> Path:
    """The folder that a record in `run_dir` names.

    >>> seen_from("/sweep/rte/trials/a", "../..").as_posix()
    '/sweep/rte'
    """
    return Path(os.path.normpath(os.path.join(os.path.abspath(run_dir), folder)))


def fingerprint(tag: str) -> str:
    """That of a split, without the number of rows that follows it in the tag: how many the epochs were chosen by.

    >>> fingerprint("3f0c 277"), fingerprint("3f0c")
    ('3f0c', '3f0c')
    """
    return tag.rpartition(" ")[0] or tag
