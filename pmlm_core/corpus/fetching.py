"""Fetching in the background: numbered things, in the order they were asked for, several at a time."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future

_THREADS = 16  # they wait for a network, not for each other


class Fetching:
    """Calls `work(number)` in threads, which start with a request and end when nothing is left.

    They are daemons, so that a process with much still to fetch, or with a store that is away, can end at once. What
    is under way is not begun again. A failure is told to those who wait for that number, and then forgotten.
    """

    def __init__(self, work: Callable[[int], object]) -> None:
        self._work = work
        self._wanted: deque[tuple[int, Future]] = deque()
        self._under_way: dict[int, Future] = {}
        self._lock = threading.Lock()
        self._threads = 0

    def ask(self, numbers: Iterable[int]) -> list[Future]:
        """Have these fetched; does not wait."""
        with self._lock:
            asked = []
            for number in numbers:
                if number not in self._under_way:
                    self._under_way[number] = Future()
                    self._wanted.append((number, self._under_way[number]))
                asked.append(self._under_way[number])
            for _ in range(min(len(self._wanted), _THREADS - self._threads)):
                threading.Thread(target=self._run, name="pmlm-fetch", daemon=True).start()
                self._threads += 1
            return asked

    def wait(self, numbers: list[int]) -> None:
        """Have these fetched, and wait until they are.

        Raises:
            Exception: what `work` raised for the first of them that failed; the next request tries those again.
        """
        failed = [error for future in self.ask(numbers) if (error := future.exception()) is not None]
        if failed:
            raise failed[0]

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._threads -= 1
                    return
                number, future = self._wanted.popleft()
            error: BaseException | None = None
            try:
                self._work(number)
            except BaseException as met:
                error = met
            with self._lock:
                del self._under_way[number]
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
