"""Slow and obvious versions of pseudo-masked language modelling, straight from docs/method.md, 1 and 3.

`may_attend` is the visibility table, case by case. `encode` is a BERT encoder on a list of tokens, one number type, no
tricks. `ae_loss` runs it once on the context; `par_loss` runs it once per factorization step, as one cloze test each.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Token:
    """One slot: `kind` is "context", "pseudo" or "true"."""

    id: int
    position: int
    segment: int
    kind: str
    step: int


def may_attend(query: Token, key: Token) -> bool:
    """The table of docs/method.md, 3."""
    if query.kind == "context":
        return key.kind == "context"
    if query.kind == "pseudo":
        if key.kind == "context":
            return True
        if key.kind == "pseudo":
            return key.step == query.step
        return key.step < query.step
    assert query.kind == "true"
    if key.kind == "context":
        return True
    if key.kind == "pseudo":
        return False
    return key.step <= query.step


def t5_bucket(distance: int, bins: int, max_distance: int) -> int:
    """Bucket of key position minus query position."""
    bucket = 0
    bins //= 2
    if distance > 0:
        bucket += bins
    distance = abs(distance)
    exact = bins // 2
    if distance < exact:
        return bucket + distance
    large = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (bins - exact))
    return bucket + min(large, bins - 1)


def encode(model, tokens: list[Token]) -> Tensor:  # type: ignore[no-untyped-def]
    """States after the last layer, [tokens, D], by the weights of a `PmlmModel`."""
    config = model.config
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    e = model.embeddings
    x = torch.stack(
        [e.word.weight[t.id] + e.position.weight[t.position] + e.token_type.weight[t.segment] for t in tokens]
    )
    x = layer_norm(x, e.norm)
    for layer in model.layers:
        d = config.hidden_size
        q = x @ layer.qkv_weight[:d].T + layer.q_bias
        k = x @ layer.qkv_weight[d : 2 * d].T
        v = x @ layer.qkv_weight[2 * d :].T + layer.v_bias
        mixed = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[:, part] @ k[:, part].T / math.sqrt(width)
            if model.rel_pos_bias is not None:
                table = model.rel_pos_bias.weight[h]
                rows = [
                    torch.stack(
                        [
                            table[t5_bucket(key.position - query.position, config.rel_pos_bins, config.max_rel_pos)]
                            for key in tokens
                        ]
                    )
                    for query in tokens
                ]
                scores = scores + torch.stack(rows)
            allowed = torch.tensor([[may_attend(query, key) for key in tokens] for query in tokens])
            weights = torch.softmax(scores.masked_fill(~allowed, -math.inf), dim=-1)
            mixed.append(weights @ v[:, part])
        attended = torch.cat(mixed, dim=1) @ layer.attention_output.weight.T + layer.attention_output.bias
        x = layer_norm(attended + x, layer.attention_norm)
        fed = (
            gelu(x @ layer.intermediate.weight.T + layer.intermediate.bias) @ layer.output.weight.T + layer.output.bias
        )
        x = layer_norm(fed + x, layer.output_norm)
    return x


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def log_probabilities(model, states: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """Of a `PmlmForPreTraining`'s output layer, [tokens, V]."""
    head = model.head
    x = layer_norm(gelu(states @ head.dense.weight.T + head.dense.bias), head.norm)
    return torch.log_softmax(x @ model.pmlm.embeddings.word.weight.T + head.bias, dim=-1)


def context_of(batch: dict[str, Tensor], b: int) -> list[Token]:
    """Row b's context without its padding."""
    ids, mask, segments = (batch[name][b].tolist() for name in ("input_ids", "attention_mask", "token_type_ids"))
    return [Token(ids[i], i, segments[i], "context", 0) for i in range(len(ids)) if mask[i]]


def slots_of(batch: dict[str, Tensor], b: int) -> list[tuple[int, int, int]]:
    """Row b's predicted slots as (position, step, true id), without padding."""
    names = ("pseudo_position_ids", "pseudo_steps", "labels")
    return [slot for slot in zip(*(batch[name][b].tolist() for name in names), strict=True) if slot[1] > 0]


def ae_loss(model, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
    """Summed over all masked tokens of the batch: one pass over the context a row."""
    total = torch.zeros((), dtype=model.dtype)
    for b in range(len(batch["input_ids"])):
        logp = log_probabilities(model, encode(model.pmlm, context_of(batch, b)))
        for position, _, true_id in slots_of(batch, b):
            total = total - logp[position, true_id]
    return total


def par_loss(model, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
    """Summed over all masked tokens of the batch: one pass for each factorization step of a row.

    The pass of step i holds the context, the true tokens of the steps before i, and the pseudo masks of step i;
    nothing else is in the room, so nothing can leak.
    """
    total = torch.zeros((), dtype=model.dtype)
    pseudo_id = model.config.pseudo_token_id
    for b in range(len(batch["input_ids"])):
        context, slots = context_of(batch, b), slots_of(batch, b)
        segment = {t.position: t.segment for t in context}
        for step in sorted({s for _, s, _ in slots}):
            past = [Token(true_id, p, segment[p], "true", s) for p, s, true_id in slots if s < step]
            now = [(p, true_id) for p, s, true_id in slots if s == step]
            masks = [Token(pseudo_id, p, segment[p], "pseudo", step) for p, _ in now]
            states = encode(model.pmlm, context + past + masks)
            logp = log_probabilities(model, states[-len(now) :])
            for row, (_, true_id) in enumerate(now):
                total = total - logp[row, true_id]
    return total
