"""Checkpoints written behind training's back: copy the state in memory, then write it in a background thread."""

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pmlm_core.errors import CheckpointError, TrainingError
from pmlm_core.training import checkpoint
from pmlm_core.training.sharding import copy_to_cpu


def copy_of(model: PreTrainedModel, *, wanted: bool = True) -> dict[str, Tensor]:
    """A CPU copy of the weights, in which tied weights are still one tensor.

    Args:
        wanted: whether this worker needs it. That of a sharded model is whole only if all workers call this.
    """
    copies: dict[int, Tensor] = {}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in copies:
            copies[id(tensor)] = copy_to_cpu(tensor, wanted=wanted)
        state[name] = copies[id(tensor)]
    return state


class CheckpointWriter:
    """Writes one checkpoint at a time in the background.

    A checkpoint that cannot be written is told to `say` and training goes on, for the next may succeed (a full disk is
    cleared); `close` raises if the last one failed. `extra_files` (the tokenizer's) go into every checkpoint.

    Of several workers one has `writes`; the others call `save` as it does, for a sharded model is gathered from all.
    """

    def __init__(
        self,
        root: Path,
        extra_files: Mapping[str, bytes],
        *,
        keep: int,
        say: Callable[[str], None],
        published: Callable[[int, Path], None],
        writes: bool = True,
    ) -> None:
        self._root, self._extra_files, self._keep = root, extra_files, keep
        self._say, self._published, self._writes = say, published, writes
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, model: PreTrainedModel, contents: checkpoint.Contents) -> None:
        """Copy the weights now and write them meanwhile; waits if the checkpoint before is still being written.

        Raises:
            TrainingError: a weight is not finite: the last update spoilt the model, and only the next loss would tell.
        """
        self.wait()
        weights = copy_of(model, wanted=self._writes)
        if not self._writes:
            return
        for name, tensor in weights.items():
            if not torch.isfinite(tensor).all():
                raise TrainingError(
                    f"after step {contents.step - 1} the weights '{name}' are not finite; no checkpoint was written, "
                    "the one before is good. Lower learning_rate or lengthen warmup_steps, and start again"
                )
        # Training goes on adding to its sums and its history while this is written.
        contents = replace(contents, state=copy.deepcopy(contents.state))
        self._thread = threading.Thread(target=self._write, args=(model, weights, contents), name="pmlm-checkpoint")
        self._thread.start()

    def close(self) -> None:
        """Wait for the last checkpoint.

        Raises:
            CheckpointError: it could not be written.
        """
        self.wait()
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, model: PreTrainedModel, weights: dict[str, Tensor], contents: checkpoint.Contents) -> None:
        def write_model(folder: Path) -> None:
            with torch.no_grad():
                model.save_pretrained(folder, state_dict=weights)
            for name, content in self._extra_files.items():
                (folder / name).write_bytes(content)

        try:
            folder = checkpoint.write(self._root, contents, write_model)
            self._failure = None
            self._published(contents.step, folder)
        except CheckpointError as error:
            self._failure = error
            self._say(str(error))
        except Exception as error:
            self._failure = CheckpointError(f"checkpoint of step {contents.step} could not be written: {error!r}")
            self._say(str(self._failure))
        else:
            self._prune()

    def _prune(self) -> None:
        try:
            checkpoint.prune(self._root, self._keep)
        except Exception as error:  # the new checkpoint is whole all the same; the next prune tries again
            self._say(f"old checkpoints in {self._root} could not be removed: {error}")
