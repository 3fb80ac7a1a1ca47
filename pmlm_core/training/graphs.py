"""Forward and backward pass as CUDA graphs: recorded once, then sent to the GPU whole instead of kernel by kernel.

A host needs longer to send a pass of a small model, or one with fast kernels, than a GPU to compute it. A graph repeats
what was recorded, on tensors at the same places in memory: so it wants batches of one shape, and its activations stay
allocated. Dropout still follows torch's seed, which a graph reads when it is sent.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pmlm_core.errors import TrainingError
from pmlm_core.training.step import Batch, Precision


def record(model: nn.Module, batch: Batch, precision: Precision) -> None:
    """Have `model` run as graphs from now on when it trains on batches like `batch`; on others it runs as before.

    Gradients that are summed over several batches have to be zeroed in place, not dropped (`train_step`'s
    `keep_gradients`): a gradient that the model makes lies where the graph will put the next one.

    Args:
        model: on a GPU, in training mode, and not wrapped yet.
        batch: names to tensors, all on the GPU; what they hold does not matter.

    Raises:
        TrainingError: the passes cannot be recorded.
        torch.OutOfMemoryError: there is no room for their activations.

    Nothing else may use the GPU meanwhile, in this process.
    """
    plain = model.forward
    passes = _Passes(model, plain, tuple(batch))
    with precision.autocast(cache_enabled=False):
        # What is wrong with the model itself shows here, and in its own words.
        sample = plain(**batch)
        sample["loss"].backward()
        model.zero_grad(set_to_none=True)
        passes.fields = tuple(name for name, value in sample.items() if isinstance(value, Tensor))
        kind = type(sample)
        del sample
        try:
            graphed: Any = torch.cuda.make_graphed_callables(
                passes, tuple(tensor.clone() for tensor in batch.values()), allow_unused_input=True
            )
        except Exception as error:
            # The end of a recording that failed hides why it did. Nor can this process go on: streams and random
            # generators still take part in it.
            if memory := _out_of_memory(error):
                raise torch.OutOfMemoryError(str(memory)) from None
            raise TrainingError(
                f"forward and backward pass cannot be recorded as CUDA graphs here ({type(error).__name__}: {error}); "
                "give cuda_graphs: false, and the same command goes on without"
            ) from error
    like = {name: (tensor.shape, tensor.dtype) for name, tensor in batch.items()}

    def forward(**given: Any) -> Any:
        if model.training and torch.is_grad_enabled() and _form(given) == like:
            made: tuple[Tensor, ...] = graphed(*(given[name] for name in like))
            return kind(**dict(zip(passes.fields, made, strict=True)))
        return plain(**given)

    model.forward = forward  # type: ignore[method-assign]


def _out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """The first cause of an error, if that is a full memory."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _form(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (x.shape, x.dtype) if isinstance(x, Tensor) else None for name, x in given.items()}


class _Passes(nn.Module):
    """A model with tensors in and tensors out, as torch records them."""

    def __init__(self, model: nn.Module, plain: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.plain, self.names = model, plain, names
        self.fields: tuple[str, ...] = ()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        output = self.plain(**dict(zip(self.names, tensors, strict=True)))
        return tuple(output[name] for name in self.fields)
