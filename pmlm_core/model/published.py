"""Published checkpoints as ours: UniLMv2's, which nobody can pre-train anew by its authors' code, and plain BERT's.

Keys of both are BERT's. UniLMv2 stores query, key and value as one weight without a bias of the key, and a relative
position bias; BERT's own key bias adds the same number to all scores of a query, which softmax ignores, so that leaving
it out changes nothing.

Source: the checkpoints `unilm2-*` of the authors' fine-tuning kit (microsoft/unilm, s2s-ft), docs/method.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import CheckpointError
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.foreign import CONVERTIBLE
from pmlm_core.model.pretraining import PmlmForPreTraining

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_IN_LAYER = {
    "attention.self.qkv_linear.weight": "qkv_weight",
    "attention.self.q_bias": "q_bias",
    "attention.self.v_bias": "v_bias",
    "attention.self.query.bias": "q_bias",
    "attention.self.value.bias": "v_bias",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}
_OUTSIDE = {
    "embeddings.word_embeddings": "pmlm.embeddings.word",
    "embeddings.position_embeddings": "pmlm.embeddings.position",
    "embeddings.token_type_embeddings": "pmlm.embeddings.token_type",
    "embeddings.LayerNorm": "pmlm.embeddings.norm",
    "encoder.rel_pos_bias": "pmlm.rel_pos_bias",
    "rel_pos_bias": "pmlm.rel_pos_bias",
    "cls.predictions.transform.dense": "head.dense",
    "cls.predictions.transform.LayerNorm": "head.norm",
    "cls.predictions.bias": "head.bias",
}
_WORDS = "embeddings.word_embeddings.weight"
_TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
_PARTS = tuple(f"attention.self.{part}.weight" for part in ("query", "key", "value"))
_WITHOUT_EFFECT = ("attention.self.key.bias", "embeddings.position_ids")


@dataclass(frozen=True)
class Converted:
    """A model, and what there was to say about it.

    Attributes:
        left_out: names of weights that our model has no place for.
        has_head: whether there was an output layer; if not, it is a fresh one.
    """

    model: PmlmForPreTraining
    left_out: tuple[str, ...]
    has_head: bool


def check_model_type(config: Mapping[str, Any], origin: str) -> None:
    """Refuse what has BERT's names and another meaning, as RoBERTa, whose positions begin at 2.

    Raises:
        CheckpointError: the configuration names a model of another kind.
    """
    named = config.get("model_type")
    if named and named not in CONVERTIBLE:
        raise CheckpointError(
            f"{origin} describes a '{named}', whose weights would become another model here; pmlm convert takes "
            "BERT and UniLMv2 (model_type 'bert' or 'unilm', or none)"
        )


def convert(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], special_ids: SpecialIds, origin: str
) -> Converted:
    """Our model with the weights of a published checkpoint, in float32.

    Args:
        weights: by the checkpoint's own names.
        config: its JSON configuration.
        special_ids: of its vocabulary.
        origin: names it in messages.

    Raises:
        CheckpointError: it is not of this kind, lacks a weight, or contradicts its configuration.
    """
    theirs = {_canonical(name): tensor for name, tensor in weights.items()}
    if _WORDS not in theirs:
        raise CheckpointError(f"{origin}: no {_WORDS} in it; give a checkpoint of UniLMv2 or BERT for PyTorch")
    _check_tied(theirs, origin)
    ours, left_out = _renamed(theirs)
    ours_config = _config(theirs, config, special_ids, origin)
    model = PmlmForPreTraining(ours_config).float().eval()
    has_head = "head.dense.weight" in ours
    wanted = {name for name in model.state_dict() if has_head or not name.startswith("head.")}
    if missing := sorted(wanted - set(ours)):
        raise CheckpointError(f"{origin}: {len(missing)} weights are missing, the first of them for {missing[0]}")
    state = model.state_dict()
    for name in sorted(wanted):
        given, place = ours[name], state[name]
        if given.shape != place.shape:
            raise CheckpointError(
                f"{origin}: {name} is {list(given.shape)}, by the configuration it would be {list(place.shape)}; "
                "give the configuration that belongs to these weights"
            )
        place.copy_(given)
    _first_segments(model, config)
    return Converted(model, tuple(left_out), has_head)


def _canonical(name: str) -> str:
    """A weight's name as of BERT's encoder, whatever the model around it was called; the oldest LayerNorm names too."""
    name = name.removeprefix("module.").removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _renamed(theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by our names, and the names of those that we have no place for."""
    ours: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, tensor in theirs.items():
        stem, _, kind = name.rpartition(".")
        if match := _LAYER.fullmatch(name):
            layer, inside = f"pmlm.layers.{match[1]}.", match[2]
            stem, _, kind = inside.rpartition(".")
            if inside in _PARTS:
                parts = [theirs.get(name.replace(inside, part)) for part in _PARTS]
                if all(part is not None for part in parts):
                    ours[f"{layer}qkv_weight"] = torch.cat(parts)  # type: ignore[arg-type]
                continue
            target = _IN_LAYER.get(inside) or (f"{_IN_LAYER[stem]}.{kind}" if stem in _IN_LAYER else None)
            if target is not None:
                ours[layer + target] = tensor
            elif inside not in _WITHOUT_EFFECT:
                left_out.append(name)
        elif name in _OUTSIDE:
            ours[_OUTSIDE[name]] = tensor
        elif stem in _OUTSIDE:
            ours[f"{_OUTSIDE[stem]}.{kind}"] = tensor
        elif name not in (*_TIED, *_WITHOUT_EFFECT):
            left_out.append(name)
    return ours, left_out


def _check_tied(theirs: Mapping[str, Tensor], origin: str) -> None:
    for name, same in zip(_TIED, (_WORDS, "cls.predictions.bias"), strict=True):
        if name in theirs and same in theirs and not torch.equal(theirs[name], theirs[same]):
            raise CheckpointError(f"{origin}: {name} differs from {same}, and here the two are one weight")


def _config(
    theirs: Mapping[str, Tensor], config: Mapping[str, Any], special_ids: SpecialIds, origin: str
) -> PmlmConfig:
    """The configuration: sizes by the weights themselves, the rest by the JSON."""
    words = theirs[_WORDS]
    positions = theirs.get("embeddings.position_embeddings.weight", torch.empty(512, 0))
    bias = theirs.get("encoder.rel_pos_bias.weight", theirs.get("rel_pos_bias.weight"))
    if max(special_ids.as_dict().values()) >= len(words):
        raise CheckpointError(
            f"{origin}: it has {len(words)} tokens, and the vocabulary's special ids are {special_ids.as_dict()}; give "
            "the vocabulary that belongs to it"
        )
    named = (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "initializer_range", "max_rel_pos"),
    )
    known: dict[str, Any] = {name: config[name] for name in named if name in config}
    special: dict[str, Any] = {f"{name}_token_id": token for name, token in special_ids.as_dict().items()}
    return PmlmConfig(
        vocab_size=len(words),
        max_position_embeddings=len(positions),
        type_vocab_size=len(theirs.get("embeddings.token_type_embeddings.weight", torch.empty(2, 0))),
        rel_pos_bins=0 if bias is None else bias.shape[1],
        **known,
        **special,
    )


def _first_segments(model: PmlmForPreTraining, config: Mapping[str, Any]) -> None:
    """Put the segments of source and target first: here they are 0 and 1 always."""
    first = [int(config.get("source_type_id", 0)), int(config.get("target_type_id", 1))]
    rows = model.pmlm.embeddings.token_type.weight
    if first != [0, 1] and max(first) < len(rows):
        others = [row for row in range(len(rows)) if row not in first]
        with torch.no_grad():  # one segment for both: it stands twice, and the last of the others has no place
            rows.copy_(rows[[*first, *others][: len(rows)]].clone())
