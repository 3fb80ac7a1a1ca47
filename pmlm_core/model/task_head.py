"""What the models with a head for a task share: a body from any checkpoint, a head of their own."""

from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmlm_core.model.base import PmlmPreTrainedModel
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.transformer import PmlmModel
from pmlm_core.randomness import key


def precisely(layer: nn.Linear, states: Tensor) -> Tensor:
    """What the layer makes of `states`, in fp32 or better, autocast or not.

    Autocast has a linear layer give bf16, three digits, in which scores of texts and of near spans tie; raising them
    afterwards tells nothing apart.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     precisely(nn.Linear(4, 2), torch.ones(3, 4, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    dtype = torch.promote_types(layer.weight.dtype, torch.float32)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    with torch.autocast(states.device.type, enabled=False):
        return F.linear(states.to(dtype), layer.weight.to(dtype), bias)


def one_a_row(labels: Tensor, rows: int, name: str) -> Tensor:
    """Labels of any shape, one for each row, as [B].

    >>> one_a_row(torch.tensor([[1], [0]]), 2, "labels")
    tensor([1, 0])

    Raises:
        ValueError: they are more or fewer.
    """
    labels_B = labels.reshape(-1)
    if len(labels_B) != rows:
        raise ValueError(f"{name} has the shape {tuple(labels.shape)}, and the batch {rows} rows; give one for each.")
    return labels_B


_WANTED: ContextVar[bool] = ContextVar("a new head is wanted", default=False)


class PmlmWithTaskHead(PmlmPreTrainedModel):
    """An encoder `pmlm` and a head that pre-training knows nothing of.

    Loading takes the body of any checkpoint; one saved by another class, as pre-training's, brings no head for this
    one, which is then drawn anew. transformers reports that, unless `head_seed` says that it is wanted.
    """

    # Whatever other heads a checkpoint has: this model has no use for them.
    _keys_to_ignore_on_load_unexpected = [r"^(?!pmlm\.)"]  # noqa: RUF012 - read by transformers as a class attribute

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__(config)
        self.pmlm = PmlmModel(config)

    def post_init(self) -> None:
        super().post_init()
        if _WANTED.get() and type(self).__name__ not in (self.config.architectures or ()):
            self._keys_to_ignore_on_load_missing = {r"^(?!pmlm\.)"}

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *args: Any, head_seed: int | None = None, **kwargs: Any
    ) -> Self:
        """As of every transformers model, and:

        Args:
            pretrained_model_name_or_path: a checkpoint of pre-training, or a fine-tuned one.
            head_seed: what a new head is drawn from, 0 if left out; without effect on a head that the checkpoint
                brings. Equal seeds give equal heads, whatever has been drawn before.
        """
        wanted = _WANTED.set(head_seed is not None)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(key(head_seed or 0, "new head") >> 1)
                return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        finally:
            _WANTED.reset(wanted)

    @classmethod
    def with_new_head(cls, folder: str | Path, *, head_seed: int, **settings: Any) -> Self:
        """The body of a checkpoint, in fp32, under a head drawn from the seed, whatever head the checkpoint brings.

        Args:
            settings: fields of the configuration that are to be others than the checkpoint's.
        """
        config = cls.config_class.from_pretrained(folder, **settings)
        config.architectures = config.problem_type = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(head_seed, "new head") >> 1)
            model = cls(config)
        model.pmlm = PmlmModel.from_pretrained(folder, config=config, dtype=torch.float32)
        return model
