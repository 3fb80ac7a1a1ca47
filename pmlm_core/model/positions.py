"""More positions than a checkpoint was trained with, as generation needs for long sources (docs/method.md, 6)."""

import torch
from torch import nn

from pmlm_core.errors import ConfigError
from pmlm_core.model.base import PmlmPreTrainedModel
from pmlm_core.model.transformer import PmlmModel


@torch.no_grad()
def extend_positions(model: PmlmPreTrainedModel, positions: int) -> None:
    """Give a model `positions` position embeddings, in place: what it has learned, over and over.

    The learned embeddings are repeated from the first on, as the authors' kit does; a random start would teach the
    first fine-tuned batches nothing but noise. Fewer positions than it has leave the model as it is.

    Raises:
        ConfigError: `positions` is not positive.
    """
    if positions < 1:
        raise ConfigError(f"A model needs at least one position, not {positions}.")
    body = model if isinstance(model, PmlmModel) else model.pmlm
    assert isinstance(body, PmlmModel)
    old = body.embeddings.position
    if positions <= old.num_embeddings:
        return
    new = nn.Embedding(positions, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype)
    new.weight.copy_(old.weight.repeat(-(-positions // old.num_embeddings), 1)[:positions])
    new.weight.requires_grad_(old.weight.requires_grad)
    body.embeddings.position = new
    for each in {id(module.config): module.config for module in (model, body)}.values():
        each.max_position_embeddings = positions
