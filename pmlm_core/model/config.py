"""`PmlmConfig`: everything that decides the model's shape, in the names of Hugging Face's BERT."""

from typing import Any

from transformers import PreTrainedConfig

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import ConfigError
from pmlm_core.model.objectives import Objective


class PmlmConfig(PreTrainedConfig):
    """Configuration of a pseudo-masked language model (docs/method.md, 4).

    Args:
        vocab_size: V.
        hidden_size: D.
        num_attention_heads: H; must divide D.
        rel_pos_bins: buckets of the relative position bias; 0 switches the bias off (Table 6's second row).
        max_rel_pos: where the buckets' logarithmic growth would end; all distances share the last bucket from somewhat
            nearer on, 91 with 32 bins and 128 (`attention.relbias.first_of_last_bin`).
        pseudo_token_id: the `[P]` of docs/method.md, 3; equal to `mask_token_id` for a published checkpoint.
        objective: what `PmlmForPreTraining` trains, a value of `Objective`.

    >>> PmlmConfig(vocab_size=1000, hidden_size=64, num_attention_heads=4, num_hidden_layers=1).head_size
    16

    Raises:
        ConfigError: sizes that contradict each other.
    """

    model_type = "pmlm"
    # Of the outputs, what is no prediction, for transformers' Trainer.
    keys_to_ignore_at_inference = ["loss_sum", "correct", "num_predictions", "past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        rel_pos_bins: int = 32,
        max_rel_pos: int = 128,
        objective: str = "AE+PAR",
        sos_token_id: int = 0,
        pad_token_id: int = 1,
        eos_token_id: int = 2,
        unk_token_id: int = 3,
        mask_token_id: int = 4,
        pseudo_token_id: int = 5,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.rel_pos_bins = rel_pos_bins
        self.max_rel_pos = max_rel_pos
        self.objective = str(objective)
        self.sos_token_id = sos_token_id
        self.pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.unk_token_id = unk_token_id
        self.mask_token_id = mask_token_id
        self.pseudo_token_id = pseudo_token_id
        # Plain attributes in transformers 5.0, fields of the base class later: setting them works for both.
        self.bos_token_id = sos_token_id
        if kwargs.get("bos_token_id") not in (None, sos_token_id):
            raise ConfigError(
                f"bos_token_id is {kwargs['bos_token_id']} and sos_token_id {sos_token_id}; they are one token, [SOS], "
                "so set sos_token_id."
            )
        self.tie_word_embeddings = tie_word_embeddings
        kwargs.update(
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            bos_token_id=sos_token_id,
            tie_word_embeddings=tie_word_embeddings,
        )
        super().__init__(**kwargs)
        self._check()

    @property
    def head_size(self) -> int:
        """E, the width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def special_ids(self) -> SpecialIds:
        """The ids as the corpus modules carry them."""
        return SpecialIds(
            sos=self.sos_token_id,
            pad=self.pad_token_id,
            eos=self.eos_token_id,
            unk=self.unk_token_id,
            mask=self.mask_token_id,
            pseudo=self.pseudo_token_id,
        )

    def _check(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} cannot be shared by {self.num_attention_heads} attention heads; "
                "choose a multiple."
            )
        if self.objective not in list(Objective):
            raise ConfigError(f"There is no objective {self.objective!r}; choose one of {', '.join(Objective)}.")
        if self.hidden_act not in ("gelu", "gelu_new", "relu"):
            raise ConfigError(
                f"hidden_act {self.hidden_act!r} is not known; choose gelu (erf), gelu_new (tanh) or relu."
            )
        if self.rel_pos_bins % 4 or (self.rel_pos_bins and self.max_rel_pos <= self.rel_pos_bins // 4):
            raise ConfigError(
                f"rel_pos_bins {self.rel_pos_bins} with max_rel_pos {self.max_rel_pos} leaves no logarithmic buckets; "
                "take a multiple of 4 and a max_rel_pos above a quarter of it, or rel_pos_bins 0 for no bias."
            )
        if not self.tie_word_embeddings:
            raise ConfigError("The output layer always shares the token embedding; leave tie_word_embeddings true.")
