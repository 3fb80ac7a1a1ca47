"""The base class of all models here."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init

from pmlm_core.model.attention.relbias import RelativeBias
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.head import LanguageModelHead
from pmlm_core.model.layer import Layer
from pmlm_core.model.weights import INDEX, files_in


class PmlmPreTrainedModel(PreTrainedModel):
    """What all heads share: the configuration class, the initialisation, saving and loading."""

    config_class = PmlmConfig
    base_model_prefix = "pmlm"
    supports_gradient_checkpointing = True
    # transformers' Trainer takes a forward pass with ** in its arguments for one that divides its loss by all predicted
    # tokens of an accumulated batch, and then divides no more.
    accepts_loss_kwargs = False
    _no_split_modules = ["Layer"]  # noqa: RUF012 - read by transformers as a class attribute

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any
    ) -> Self:
        """As of every transformers model, but weights are taken from safetensors files, never from a pickle.

        Raises:
            CheckpointError: an index of weights names files elsewhere.
        """
        if (index := Path(pretrained_model_name_or_path) / INDEX).is_file():
            files_in(index)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **{**kwargs, "use_safetensors": True})

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As of every transformers model; the bias of the output layer follows, 0 for new tokens."""
        embedding = super().resize_token_embeddings(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, LanguageModelHead):
                bias_V = module.bias.detach()[: embedding.num_embeddings]
                bias_V = F.pad(bias_V, (0, embedding.num_embeddings - len(bias_V)))
                module.bias = nn.Parameter(bias_V, requires_grad=module.bias.requires_grad)
        return embedding

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        """Where every way to recomputation of the layers leads through.

        Raises:
            ValueError: it is asked for with `use_reentrant=True`.
        """
        for given in (*args, *kwargs.values()):
            if getattr(given, "keywords", {}).get("use_reentrant"):
                raise ValueError(
                    "use_reentrant=True runs a backward pass of its own for each layer, and all layers share the "
                    'relative bias; enable gradient checkpointing with {"use_reentrant": False}.'
                )
        super()._set_gradient_checkpointing(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """N(0, initializer_range) for weights, the relative bias included; zero biases; LayerNorm the identity."""
        # transformers' `init` functions leave alone what a checkpoint has already filled.
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding | RelativeBias):
            init.normal_(module.weight, mean=0.0, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Layer):
            init.normal_(module.qkv_weight, mean=0.0, std=std)
            init.zeros_(module.q_bias)
            init.zeros_(module.v_bias)
        elif isinstance(module, LanguageModelHead):
            init.zeros_(module.bias)
