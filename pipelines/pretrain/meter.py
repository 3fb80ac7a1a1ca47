"""How fast a worker group trains: tokens a second, share of the peak rate, share of time spent waiting for data."""

from typing import Any

from pipelines.pretrain.plan import WorkPlan
from pmlm_core.model.cost import forward_flops
from pmlm_core.training.peak import peak
from pmlm_core.training.step import Precision


class Meter:
    """Speed since the last logged step. Evaluations and copying for checkpoints are not counted as training time."""

    def __init__(self, plan: WorkPlan, precision: Precision, size: Any, world: int) -> None:
        self._plan, self._size = plan, size
        self._peak = peak(precision.device, precision.name).rate * world
        self._waited_before = 0.0
        self.clear()

    def add(self, seconds: float, waited_in_total: float, tokens: float, predictions: int) -> None:
        """One step: seconds of computing, the loader's total of seconds waited, tokens and predictions of the batch."""
        waited = waited_in_total - self._waited_before
        self._waited_before = waited_in_total
        self._seconds += seconds + waited
        self._waited += waited
        self._tokens += tokens
        self._predictions += predictions
        self._steps += 1

    def figures(self) -> dict[str, float]:
        """Figures of the journal; MFU counts the model's own products, without padding (Chowdhery et al. 2022)."""
        rows = self._steps * self._plan.config.batch_size
        flops = (
            3
            * rows
            * forward_flops(
                self._size,
                vocab_size=self._plan.data.vocab_size,
                context=round(self._tokens / rows),
                slots=round(self._predictions / rows),
                objective=self._plan.config.objective,
            )
        )
        return {
            "tokens_per_second": self._tokens / self._seconds,
            "mfu": flops / self._seconds / self._peak,
            "data_wait_share": self._waited / self._seconds,
        }

    def clear(self) -> None:
        self._seconds = self._waited = self._tokens = 0.0
        self._predictions = self._steps = 0
