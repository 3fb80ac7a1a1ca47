"""`PmlmForConditionalGeneration`: fine-tuned, one `[P]` per target token; `generate` decodes (docs/method.md, 6)."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import ModelOutput

from pmlm_core.model.base import PmlmPreTrainedModel
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.device import eager_on_cpu
from pmlm_core.model.generation.cache import TargetCache
from pmlm_core.model.generation.length_penalty import LengthPenalty
from pmlm_core.model.generation.source import SOURCE_TYPE, Source, SourceEncoder, SourceOutput, align, target_type
from pmlm_core.model.generation.step import pseudo_state
from pmlm_core.model.head import LanguageModelHead
from pmlm_core.model.inputs import refuse_unknown
from pmlm_core.model.transformer import PmlmModel


@dataclass
class PmlmForConditionalGenerationOutput(ModelOutput):
    """What a batch gives; None where it was not asked for.

    Attributes:
        loss: mean cross-entropy over this batch's target tokens, smoothed if asked for.
        loss_sum: their sum, for a mean over a global batch.
        correct: target tokens that had the largest logit.
        num_predictions: target tokens.
        logits: only without labels. Of the token after each of `decoder_input_ids`, [B, T, V]; in decoding, after the
            last one only, [B, 1, V].
        past_key_values: in decoding, the target's past.
    """

    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    correct: Tensor | None = None
    num_predictions: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: TargetCache | None = None


class PmlmForConditionalGeneration(PmlmPreTrainedModel, LengthPenalty, GenerationMixin):  # type: ignore[misc]
    """The encoder with the output layer; it has the weights of `PmlmForPreTraining`, name by name.

    To `generate` it looks like an encoder and a decoder: `input_ids` is the source, what is generated is the target,
    and the `[SOS]` that every generated row starts with is never fed to the model.

    >>> config = PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    >>> model = PmlmForConditionalGeneration(config).eval()
    >>> source = torch.tensor([[0, 7, 9, 2], [0, 8, 2, 1]])
    >>> output = model(source, labels=torch.tensor([[9, 7, 2], [8, 2, -100]]))
    >>> output.num_predictions.item(), output.loss.shape
    (5, torch.Size([]))
    >>> model.generate(source, max_new_tokens=4, min_new_tokens=4).shape
    torch.Size([2, 5])
    """

    main_input_name = "input_ids"

    def __init__(self, config: PmlmConfig) -> None:
        config = copy.deepcopy(config)
        config.is_encoder_decoder = True
        super().__init__(config)
        self.pmlm = PmlmModel(config)
        self.head = LanguageModelHead(config)
        self.post_init()
        self._complete_generation_config()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return SourceEncoder(self.pmlm)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: SourceOutput | None = None,
        past_key_values: TargetCache | None = None,
        use_cache: bool | None = None,
        smoothing: float = 0.0,
        **others: Any,
    ) -> PmlmForConditionalGenerationOutput:
        """Loss with labels; logits of all target positions without; logits of the next one with `encoder_outputs`.

        Args:
            input_ids: `[SOS] SRC [EOS]`, [B, N], padded on either side.
            attention_mask: 0 where it is padding, [B, N]; None takes [PAD] for padding.
            token_type_ids: None for the source's segment throughout.
            decoder_input_ids: any start token, then the true tokens before each target position, [B, T]. With labels,
                None takes the labels themselves; word-drop puts [MASK] for some.
            labels: the target with its closing [EOS] and without [SOS], as `tokenizer(text_target=...)` gives it,
                [B, T]; -100 for padding, and with `decoder_input_ids` for any
                token that is not to be learned.
            encoder_outputs: from `get_encoder()`; with it and `decoder_input_ids` a decoding step is made, without
                gradient, whose rows may be several to a source.
            past_key_values: from the step before; only the tokens after it are computed.
            smoothing: `label_smoothing` of `pmlm_core.model.cross_entropy.cross_entropy_sum`, whose name transformers'
                Trainer would take for a batch's labels.
            others: what transformers gives to every model; without effect.

        Raises:
            ValueError: source and target need more positions than the model has; an input is missing, or says what
                another says too; [SOS] among the labels; a -100 inside the target without `decoder_input_ids`.
            TypeError: an argument that there is not.
        """
        refuse_unknown(others, self.forward)
        if encoder_outputs is not None:
            if labels is not None or decoder_input_ids is None:
                raise ValueError(
                    "encoder_outputs and decoder_input_ids make one step of decoding; for a loss give input_ids and "
                    "labels instead."
                )
            return self._next(encoder_outputs, decoder_input_ids, past_key_values, use_cache is not False)
        if input_ids is None or (labels is None and decoder_input_ids is None):
            raise ValueError("Give input_ids, and labels or decoder_input_ids; to make up a target, call generate.")
        states_BTD = self._forced(input_ids, attention_mask, token_type_ids, decoder_input_ids, labels)
        embedding_VD = self.pmlm.embeddings.word.weight
        if labels is None:
            return PmlmForConditionalGenerationOutput(logits=self.head(states_BTD, embedding_VD))
        loss_sum, correct = self.head.loss(states_BTD, embedding_VD, labels, smoothing)
        predictions = (labels != IGNORED).sum()
        return PmlmForConditionalGenerationOutput(
            loss=loss_sum / predictions.clamp(min=1), loss_sum=loss_sum, correct=correct, num_predictions=predictions
        )

    def _forced(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        decoder_input_ids: Tensor | None,
        labels_BT: Tensor | None,
    ) -> Tensor:
        """States of one `[P]` per target position, each beside the true tokens before it, [B, T, D]."""
        config = self.config
        ids_BN, kept_BN, types_BN = align(
            input_ids,
            attention_mask,
            token_type_ids,
            pad_id=config.pad_token_id,
            source_type=SOURCE_TYPE,
            right=False,
        )
        if labels_BT is None:
            assert decoder_input_ids is not None
            # Nobody sees the last true token, so any will do.
            labels_BT = torch.cat([decoder_input_ids[:, 1:], decoder_input_ids[:, -1:]], dim=1)
        else:
            _refuse((labels_BT == config.sos_token_id).any(), _SOS)
        labelled_BT = labels_BT != IGNORED
        offsets_T = torch.arange(labels_BT.shape[1], device=ids_BN.device)
        # What is left out of the loss before the last label is a part of the target all the same.
        used_BT = offsets_T < (labelled_BT * (offsets_T + 1)).amax(1, keepdim=True)
        if decoder_input_ids is None:
            _refuse((used_BT & ~labelled_BT).any(), _HOLES)
            decoder_input_ids = torch.cat([labels_BT[:, :1], labels_BT[:, :-1]], dim=1)
        true_BT = torch.cat([decoder_input_ids[:, 1:], labels_BT[:, -1:]], dim=1)
        lengths_B1 = kept_BN.sum(1, keepdim=True)
        _check_positions(lengths_B1, used_BT, (ids_BN.shape[1] + used_BT.shape[1], config.max_position_embeddings))
        _, states_BTD = self.pmlm.predicted_states(
            ids_BN,
            kept_BN,
            types_BN,
            torch.where(used_BT, lengths_B1 + offsets_T, 0),
            torch.where(used_BT, offsets_T + 1, 0),
            torch.where(used_BT, true_BT, config.pad_token_id),
            ae=False,
            par=True,
            slot_token_type_ids=torch.full_like(true_BT, target_type(config)),
            reach=min(ids_BN.shape[1] + used_BT.shape[1], config.max_position_embeddings),
        )
        assert states_BTD is not None
        return states_BTD

    def _next(
        self, encoder_outputs: SourceOutput, decoder_input_ids: Tensor, past: TargetCache | None, use_cache: bool
    ) -> PmlmForConditionalGenerationOutput:
        """Logits of the token after `decoder_input_ids`, whose first token is a start that is not fed."""
        source = encoder_outputs.source
        assert source is not None
        cache = past if isinstance(past, TargetCache) and use_cache else TargetCache()
        state_BD = pseudo_state(self.pmlm, source, decoder_input_ids[:, 1:], cache)
        logits_B1V = self.head(state_BD, self.pmlm.embeddings.word.weight)[:, None]
        return PmlmForConditionalGenerationOutput(logits=logits_B1V, past_key_values=cache if use_cache else None)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The `decoder_input_ids` that labels imply, [B, T]; transformers' `DataCollatorForSeq2Seq` asks for them."""
        start_B1 = torch.full_like(labels[:, :1], self.config.sos_token_id)
        before_BT = torch.cat([start_B1, labels[:, :-1]], dim=1)
        return before_BT.masked_fill(before_BT == IGNORED, self.config.pad_token_id)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        encoder_outputs: SourceOutput | None = None,
        past_key_values: TargetCache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """All tokens so far; the cache knows how many of them are new."""
        return {
            "decoder_input_ids": input_ids,
            "encoder_outputs": encoder_outputs,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
        }

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> None:
        """The hook of `generate` that first knows both lengths: it makes the cache, and refuses a target too long."""
        source: Source = model_kwargs["encoder_outputs"].source
        positions, new = self.config.max_position_embeddings, generation_config.max_length - 1
        longest = int(source.lengths_R.max())
        if longest + new > positions:
            raise ValueError(
                f"A source of {longest} tokens and {new} new ones need {longest + new} positions, and the model has "
                f"{positions}; cut the source, lower max_new_tokens, or see pmlm_core.model.positions.extend_positions."
            )
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = TargetCache()

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """What `from_pretrained` does with a folder's generation config; a pre-training checkpoint has none."""
        super().adjust_generation_fn(*args, **kwargs)  # type: ignore[misc]
        self._complete_generation_config()

    def decode_by(self, **search: Any) -> None:
        """Let `generate` search so when nothing else is asked for, whatever the checkpoint said: this is saved.

        Args:
            search: fields of transformers' `GenerationConfig`.
        """
        self.generation_config = GenerationConfig(**search)
        self._complete_generation_config()

    def _complete_generation_config(self) -> None:
        """Fill in what decoding needs: the special ids, and that of them only [EOS] may be generated."""
        ids = self.config.special_ids.as_dict()
        needed = {
            "bos_token_id": ids["sos"],
            "decoder_start_token_id": ids["sos"],
            "eos_token_id": ids["eos"],
            "pad_token_id": ids["pad"],
            "suppress_tokens": sorted(set(ids.values()) - {ids["eos"]}),
        }
        for name, value in needed.items():
            if getattr(self.generation_config, name, None) is None:
                setattr(self.generation_config, name, value)


_SOS = (
    "A label is [SOS], which is never generated: a target is its tokens and the closing [EOS], as "
    "tokenizer(text_target=...) gives it."
)
_HOLES = (
    "A label before the last of its row is -100: that token is not predicted, and nothing says which it is. Give "
    "decoder_input_ids, the true tokens before each target position."
)


def _refuse(wrong: Tensor, what: str) -> None:
    """Raise ValueError if `wrong`, a truth value on the device."""
    if eager_on_cpu(wrong):
        if bool(wrong):
            raise ValueError(what)
    elif wrong.is_cuda:
        # Nobody waits for it; the GPU stops with these words.
        torch._assert_async(~wrong, what)


def _check_positions(lengths_B1: Tensor, used_BT: Tensor, need_and_have: tuple[int, int]) -> None:
    """Refuse a row whose target runs beyond the model's positions; padding may."""
    need, have = need_and_have
    if need <= have:
        return
    # Only here is it worth making a GPU wait.
    need = int((lengths_B1[:, 0] + used_BT.sum(1)).max())
    if need > have:
        raise ValueError(
            f"Source and target of a row need {need} positions and the model has {have}; cut one of them, or give the "
            "model more with pmlm_core.model.positions.extend_positions."
        )
