"""Micro-batches of a worker, prepared ahead of the step that uses them by a background thread.

Rows are addressed by (seed, step), so a loader that starts at step s yields exactly what one that started at 0 yields
from s on: there is no other state to save.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """Which part of every global batch a worker takes."""

    rank: int
    world: int
    batch_size: int
    micro_batch_size: int

    def micro_batches(self) -> range:
        """Indices, in the global batch, of this worker's micro-batches; those beyond its end have no rows.

        Every worker has equally many, for in each of them workers may wait for each other.
        """
        rounds = -(-(self.batch_size // self.micro_batch_size) // self.world)
        return range(self.rank, rounds * self.world, self.world)


class Loader:
    """Iterates over (step, [(micro-batch index, tensors), ...]) from `first_step` to `max_steps`.

    Args:
        rows_of_step: step -> (rows, views) of the global batch, `batch_size` long each.
        make: (rows, views) -> tensors of a micro-batch, on the CPU; of no rows, a stand-in that weighs nothing.
        device: where to put them.
        ahead: steps prepared in advance.
        coming: told the rows of this worker before they are prepared: those of the first step, then of the next
            `told_ahead` steps, then step by step.
        measure: numbers of a micro-batch, taken while it is on the CPU: asking a GPU for them would make it wait.

    `waited` grows by the seconds the consumer had to wait, copying to the device included; `measured` holds the sums of
    `measure` over the micro-batches of the step that was yielded last. An exception in the background thread is raised
    to the consumer at the step it concerns.
    """

    def __init__(
        self,
        rows_of_step: Callable[[int], tuple[np.ndarray, np.ndarray]],
        make: Callable[[np.ndarray, np.ndarray], Batch],
        share: Share,
        *,
        first_step: int,
        max_steps: int,
        device: torch.device,
        ahead: int = 4,
        coming: Callable[[np.ndarray], None] = lambda rows: None,
        told_ahead: int = 0,
        measure: Callable[[Batch], Sequence[int]] = lambda batch: (),
    ) -> None:
        self.waited = 0.0
        self.measured: list[int] = []
        self._rows_of_step, self._make, self._share = rows_of_step, make, share
        self._steps = range(first_step, max_steps)
        self._device, self._measure = device, measure
        self._coming, self._told_ahead = coming, told_ahead
        self._queue: queue.Queue = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="pmlm-loader", daemon=True)

    def __iter__(self) -> Iterator[tuple[int, list[tuple[int, Batch]]]]:
        self._thread.start()
        try:
            for step in self._steps:
                begun = time.perf_counter()
                item = self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                prepared, self.measured = item
                micro_batches = [(index, self._to_device(batch)) for index, batch in prepared]
                self.waited += time.perf_counter() - begun
                yield step, micro_batches
        finally:
            self._stop.set()

    def prepare(self, step: int) -> list[tuple[int, Batch]]:
        """This worker's micro-batches of `step`, on the CPU."""
        rows, views = self._rows_of_step(step)
        size = self._share.micro_batch_size
        return [
            (index, self._make(rows[index * size : (index + 1) * size], views[index * size : (index + 1) * size]))
            for index in self._share.micro_batches()
        ]

    def _rows(self, step: int) -> np.ndarray:
        """All rows of this worker's micro-batches of `step`."""
        rows, size = self._rows_of_step(step)[0], self._share.micro_batch_size
        return np.concatenate([rows[index * size : (index + 1) * size] for index in self._share.micro_batches()])

    def _to_device(self, batch: Batch) -> Batch:
        if self._device.type == "cpu":
            return batch
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}

    def _pinned(self, batch: Batch) -> Batch:
        """In memory that a GPU copies from by itself; getting such memory takes time, so it is done in advance."""
        if self._device.type != "cuda":
            return batch
        return {name: tensor.pin_memory() for name, tensor in batch.items()}

    def _fill(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # every thread has its own; pinning would wake up the first GPU
            told = self._steps.start
            for step in self._steps:
                ahead = (
                    min(self._told_ahead, 1) if step == self._steps.start else self._told_ahead
                )  # nothing in its way
                while told < min(step + ahead, self._steps.stop):
                    self._coming(self._rows(told))
                    told += 1
                micro_batches = self.prepare(step)
                measured = [sum(values) for values in zip(*(self._measure(b) for _, b in micro_batches), strict=True)]
                if not self._put(([(index, self._pinned(batch)) for index, batch in micro_batches], measured)):
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False
