"""A call to a store that may be away or hang: so long and no longer, and never an error of the run's."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pipelines.tracking.redact import in_brief

T = TypeVar("T")


class Attempt(Generic[T]):
    """What came of a call within its time: `result`, or `failure` in words."""

    def __init__(self, work: Callable[[], T], timeout: float, name: str) -> None:
        """Call `work` in a thread named `name`; one that outlasts `timeout` seconds is left behind."""
        self.result: T | None = None
        self.failure: str | None = f"no end within {timeout:.0f} s"
        thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        thread.start()
        thread.join(timeout)

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self.result = work()
            self.failure = None
        except Exception as error:
            self.failure = f"{type(error).__name__}: {in_brief(error)}"
