"""The parts of the encoder: embeddings and one post-LayerNorm Transformer layer (docs/method.md, 4)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from pmlm_core.model.activation import ACTIVATIONS, gelu
from pmlm_core.model.attention.interface import Call, attend
from pmlm_core.model.attention.thirds import apart
from pmlm_core.model.compiling import InParts
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.device import product_dtype, state_dtype
from pmlm_core.model.dropout import draw_products, dropout
from pmlm_core.model.fused import fuses
from pmlm_core.model.residual import add_and_norm


class Embeddings(InParts):
    """Token + learned absolute position + segment, then LayerNorm and dropout."""

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob

    def forward(self, ids_BT: Tensor, position_ids_BT: Tensor, token_type_ids_BT: Tensor) -> Tensor:
        looked_up = self.word(ids_BT), self.position(position_ids_BT), self.token_type(token_type_ids_BT)
        return self.part(_embed)(self.norm, *looked_up, self.dropout_p, self.training)


def _embed(norm: nn.LayerNorm, word_BTD: Tensor, position_BTD: Tensor, type_BTD: Tensor, p: float, on: bool) -> Tensor:
    return dropout(norm(word_BTD + position_BTD + type_BTD).to(state_dtype(word_BTD)), p, on)


class Layer(InParts, GradientCheckpointingLayer):
    """One Transformer layer: attention and a feed-forward block, each with dropout, residual and LayerNorm after it.

    Query, key and value come from one fused weight [3D, D], as published checkpoints store it. The key has no bias:
    it would add the same number to all scores of a query, which softmax ignores.
    """

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv_weight = nn.Parameter(torch.empty(3 * d, d))
        self.q_bias = nn.Parameter(torch.zeros(d))
        self.v_bias = nn.Parameter(torch.zeros(d))
        self.attention_output = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(d, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, d)
        self.output_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.hidden_p = config.hidden_dropout_prob
        self.attention_p = config.attention_probs_dropout_prob

    def forward(self, hidden_BTD: Tensor, calls: tuple[Call, ...], queries_BQD: Tensor | None = None) -> Tensor:
        """The states after this layer: of all T slots, or of the slots in `queries_BQD` alone."""
        if queries_BQD is None:
            queries_BQD = hidden_BTD
            q, k, v = self.project(hidden_BTD, 0, 3)
        else:
            (q,) = self.project(queries_BQD, 0, 1)
            k, v = self.project(hidden_BTD, 1, 3)
        return self.finish(attend(q, k, v, calls, self.attention_p if self.training else 0.0), queries_BQD)

    def project(self, hidden_BTD: Tensor, start: int, stop: int) -> tuple[Tensor, ...]:
        """Query, key and value of each slot, or those of the three from `start` to before `stop`; [B, T, H, E] each."""
        return apart(self.part(_project)(self, hidden_BTD, start, stop))

    def finish(self, mixed_BQHE: Tensor, queries_BQD: Tensor) -> Tensor:
        """The states after this layer, [B, Q, D], from those before it and the values that attention has mixed."""
        work, random = _finish_fused if self._fused(mixed_BQHE) else self.part(_finish), None
        if work is not _finish and self.hidden_p and self.training:
            random = draw_products(queries_BQD, 2)
        return work(self, mixed_BQHE, queries_BQD, random)

    def _fused(self, mixed_BQHE: Tensor) -> bool:
        """Whether kernels take the parameters of this layer's modules, and so pass the modules by."""
        modules = (self.attention_output, self.attention_norm, self.intermediate, self.output, self.output_norm)
        if not all(map(_as_made, modules)):
            return False
        return fuses(mixed_BQHE, product_dtype(mixed_BQHE), self.q_bias.shape[0], self.intermediate.out_features)


def _as_made(module: nn.Module) -> bool:
    """Whether nobody put another module in its place (adapters, quantisation), nor listens at it (offloading)."""
    listening = (
        module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks
    )  # fmt: skip
    return type(module) in (nn.Linear, nn.LayerNorm) and not any(listening) and "forward" not in vars(module)


def _project(layer: Layer, hidden_BTD: Tensor, start: int, stop: int) -> Tensor:
    """[B, T, P, H, E] of the P parts wanted."""
    d = layer.q_bias.shape[0]
    bias_3D = torch.cat([layer.q_bias, torch.zeros_like(layer.q_bias), layer.v_bias])
    rows = slice(start * d, stop * d)
    fused = F.linear(hidden_BTD, layer.qkv_weight[rows], bias_3D[rows])
    return fused.view(*fused.shape[:2], stop - start, layer.heads, -1)


def _finish(layer: Layer, mixed_BQHE: Tensor, queries_BQD: Tensor, random: Tensor | None) -> Tensor:
    p, on = layer.hidden_p, layer.training
    first, second = (None, None) if random is None else random
    mixed_BQD = layer.attention_output(mixed_BQHE.flatten(2))
    attended_BQD = add_and_norm(mixed_BQD, queries_BQD, layer.attention_norm, p, on, first)
    in_part = layer.compiled and torch.compiler.is_compiling()
    activation = gelu if in_part and layer.activation is F.gelu else layer.activation
    fed_BQD = layer.output(activation(layer.intermediate(attended_BQD)))
    return add_and_norm(fed_BQD, attended_BQD, layer.output_norm, p, on, second)


def _finish_fused(layer: Layer, mixed_BQHE: Tensor, queries_BQD: Tensor, random: Tensor | None) -> Tensor:
    """`_finish` by kernels that add the biases, too."""
    from pmlm_core.model.activation_tiled import bias_gelu
    from pmlm_core.model.residual_tiled import add_and_norm

    p, dtype = layer.hidden_p if layer.training else 0.0, state_dtype(queries_BQD)
    first, second = (None, None) if random is None else random

    def added(linear: nn.Linear, x: Tensor, residual_BQD: Tensor, norm: nn.LayerNorm, drawn: Tensor | None) -> Any:
        product_BQD, how = F.linear(x, linear.weight), (norm.weight, norm.bias, norm.eps)
        return add_and_norm(product_BQD, linear.bias, residual_BQD, *how, p, drawn, dtype)

    # Two uses have two gradients, which the kernel adds.
    attended_BQD, again_BQD = added(
        layer.attention_output, mixed_BQHE.flatten(2), queries_BQD, layer.attention_norm, first
    )
    if layer.activation is F.gelu:
        inner_BQF = bias_gelu(F.linear(attended_BQD, layer.intermediate.weight), layer.intermediate.bias)
    else:
        inner_BQF = layer.activation(layer.intermediate(attended_BQD))
    states_BQD: Tensor = added(layer.output, inner_BQF, again_BQD, layer.output_norm, second)[0]
    return states_BQD
