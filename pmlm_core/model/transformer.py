"""The encoder over a pseudo-mask layout (docs/method.md, 3 and 4)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ModelOutput

from pmlm_core.model.attention.choice import kernel_for
from pmlm_core.model.attention.plan import Plan, make_plan
from pmlm_core.model.attention.relbias import RelativeBias
from pmlm_core.model.base import PmlmPreTrainedModel
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.device import eager_on_cpu, product_dtype
from pmlm_core.model.inputs import as_ids, refuse_unknown
from pmlm_core.model.layer import Embeddings, Layer
from pmlm_core.model.pseudo import lay_out


@dataclass
class PmlmModelOutput(ModelOutput):
    """States after the last layer.

    Attributes:
        last_hidden_state: context, [B, N, D].
        pseudo_hidden_state: pseudo masks, [B, K, D]; None without an appended part.
        true_hidden_state: appended true tokens, [B, K, D]; None without an appended part.
        hidden_states: context, after the embeddings and after each layer, [B, N, D] each; None unless asked for.
    """

    last_hidden_state: Tensor | None = None
    pseudo_hidden_state: Tensor | None = None
    true_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class PmlmModel(PmlmPreTrainedModel):
    """The encoder without a head. With the context alone it is a bidirectional encoder, as in fine-tuning."""

    def __init__(self, config: PmlmConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.rel_pos_bias = (
            RelativeBias(config.num_attention_heads, config.rel_pos_bins, config.max_rel_pos)
            if config.rel_pos_bins
            else None
        )
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        pseudo_position_ids: Tensor | None = None,
        pseudo_steps: Tensor | None = None,
        true_ids: Tensor | None = None,
        pseudo_token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> PmlmModelOutput:
        """All states of the last layer.

        Args:
            input_ids: context, conventional masks in place, [B, N].
            attention_mask: 0 where the context is padding, [B, N]; None for no padding.
            token_type_ids: segments, [B, N]; None for all 0.
            position_ids: [B, N]; None for 0, 1, 2, ….
            pseudo_position_ids: position of each predicted token, [B, K]. With it, `pseudo_steps` and `true_ids` comes
                the appended part. It may lie beyond the context, as the target's positions do in generation, if
                `pseudo_token_type_ids` are given.
            pseudo_steps: its factorization step 1, 2, …; 0 for padding, [B, K].
            true_ids: the tokens themselves, [B, K]; anything at padding.
            pseudo_token_type_ids: their segments, [B, K]; None to take those of the context at the same positions.
            output_hidden_states: whether to give the states after every layer; None for what the configuration says.
            others: what transformers gives to every model; without effect.

        Raises:
            ValueError: the input is longer than the model's positions, the mask, segments or positions have not its
                shape, or a part of the appended part is missing.
            TypeError: an argument that there is not.
        """
        refuse_unknown(others, self.forward)
        appended = None
        if pseudo_position_ids is not None and pseudo_steps is not None and true_ids is not None:
            appended = Appended(pseudo_position_ids, pseudo_steps, true_ids, pseudo_token_type_ids)
        elif any(x is not None for x in (pseudo_position_ids, pseudo_steps, true_ids, pseudo_token_type_ids)):
            raise ValueError(
                "The appended part takes pseudo_position_ids, pseudo_steps and true_ids; give all of them, or none."
            )
        hidden_BTD, plan = self._begin(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            appended,
            slot_positions_BK=pseudo_position_ids,
            read_ae=False,
            reach=self.config.max_position_embeddings,
        )
        n = input_ids.shape[1]
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states = [hidden_BTD[:, :n]] if wanted else []
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD, plan.full)
            states += [hidden_BTD[:, :n]] if wanted else []
        parts = (hidden_BTD,)
        if appended is not None:
            slots = appended.steps_BK.shape[1]
            parts = hidden_BTD.split([n, slots, slots], dim=1)
        return PmlmModelOutput(*parts, hidden_states=tuple(states) if wanted else None)

    def predicted_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        slot_positions: Tensor,
        slot_steps: Tensor,
        true_ids: Tensor,
        *,
        ae: bool,
        par: bool,
        slot_token_type_ids: Tensor | None = None,
        reach: int | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """States after the last layer at the predicted slots alone: (conventional masks, pseudo masks), [B, K, D] each.

        The same numbers as `forward`'s, but the last layer computes queries and the feed-forward block for these slots
        only. Positions of the context are 0, 1, 2, ….

        Args:
            slot_token_type_ids: segments of the slots; None to take those of the context at the same positions.
            reach: a number above every position, where the slots' may lie beyond the context; None for N.
        """
        appended = Appended(slot_positions, slot_steps, true_ids, slot_token_type_ids) if par else None
        hidden_BTD, plan = self._begin(
            input_ids,
            attention_mask,
            token_type_ids,
            None,
            appended,
            slot_positions_BK=slot_positions,
            read_ae=ae,
            reach=reach or input_ids.shape[1],
        )
        for layer in self.layers[:-1]:
            hidden_BTD = layer(hidden_BTD, plan.full)
        n, slots = input_ids.shape[1], slot_positions.shape[1]
        read = []
        if ae:
            at_masks = slot_positions[:, :, None].expand(-1, -1, hidden_BTD.shape[-1])
            read.append(hidden_BTD.gather(1, at_masks))
        if par:
            read.append(hidden_BTD[:, n : n + slots])
        states_BQD = self.layers[-1](hidden_BTD, plan.read, torch.cat(read, dim=1))
        return states_BQD[:, :slots] if ae else None, states_BQD[:, -slots:] if par else None

    def _begin(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        appended: "Appended | None",
        *,
        slot_positions_BK: Tensor | None,
        read_ae: bool,
        reach: int,
    ) -> tuple[Tensor, Plan]:
        """Embeddings of all slots and the attention plan."""
        rows, n = input_ids.shape
        if n > self.config.max_position_embeddings:
            raise ValueError(
                f"The input is {n} tokens long and the model has {self.config.max_position_embeddings} positions; "
                "cut the input or choose a model with more max_position_embeddings."
            )
        # Kernels read these row by row, whatever was given.
        attention_mask, token_type_ids, position_ids = (
            None if x is None else as_ids(x, input_ids, name)
            for x, name in (
                (attention_mask, "attention_mask"),
                (token_type_ids, "token_type_ids"),
                (position_ids, "position_ids"),
            )
        )
        # Looking at the mask would make a GPU wait; there, pass None where nothing is padded.
        if attention_mask is not None and eager_on_cpu(attention_mask) and bool(attention_mask.all()):
            attention_mask = None
        types_BN = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        ids, types = [input_ids], [types_BN]
        positions_BN = position_ids
        if positions_BN is None:
            positions_BN = torch.arange(n, device=input_ids.device).expand(rows, n)
        positions = [positions_BN]
        if appended is not None:
            slot_types_BK = appended.token_type_ids_BK
            if slot_types_BK is None:
                slot_types_BK = types_BN.gather(1, appended.position_ids_BK)
            pseudo_BK = torch.full_like(appended.true_ids_BK, self.config.pseudo_token_id)
            ids += [pseudo_BK, appended.true_ids_BK]
            positions += [appended.position_ids_BK] * 2
            types += [slot_types_BK] * 2
        hidden_BTD = self.embeddings(torch.cat(ids, 1), torch.cat(positions, 1), torch.cat(types, 1))
        kept_BN = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        dtype = product_dtype(hidden_BTD)
        plan = make_plan(
            lay_out(kept_BN, None if appended is None else appended.steps_BK),
            padded=attention_mask is not None,
            relative=self.rel_pos_bias,
            reach=reach,
            position_ids_BN=position_ids,
            slot_positions_BK=slot_positions_BK,
            read_ae=read_ae,
            dtype=dtype,
            kernel=kernel_for(hidden_BTD, dtype, self.config.head_size),
        )
        return hidden_BTD, plan


@dataclass(frozen=True)
class Appended:
    """The appended part of a batch, [B, K] each; steps are 0 at padding."""

    position_ids_BK: Tensor
    steps_BK: Tensor
    true_ids_BK: Tensor
    token_type_ids_BK: Tensor | None
