"""Beam search with the length penalty ((5 + length) / 6) ^ a (docs/method.md, 6), in transformers' search.

transformers divides the score of a sequence by length ^ a, in two places. Here both get the score divided already and
the exponent 0. `length` counts the generated tokens, the closing [EOS] too; `length_penalty` of the generation config
is a. Source of the formula: Wu et al. 2016, equation 14.
"""

from typing import Any

from torch import Tensor


def penalty(length: int, a: float) -> float:
    """What the log-probability of a sequence is divided by.

    >>> penalty(1, 0.7), penalty(19, 0.5), penalty(30, 0.0)
    (1.0, 2.0, 1.0)
    """
    return float(((5 + length) / 6) ** a)


class LengthPenalty:
    """Put before `GenerationMixin` in the bases of a model."""

    def _update_finished_beams(self, **kwargs: Any) -> Any:
        length = kwargs["cur_len"] + 1 - kwargs["decoder_prompt_len"]
        kwargs["topk_log_probs"] = kwargs["topk_log_probs"] / penalty(length, kwargs["length_penalty"])
        return super()._update_finished_beams(**(kwargs | {"length_penalty": 0.0}))  # type: ignore[misc]

    def _check_early_stop_heuristic(self, **kwargs: Any) -> Tensor:
        """Whether a running beam may still beat a finished one, as far as its score at the length to hope for tells."""
        a, early = kwargs["length_penalty"], kwargs["early_stopping"]
        end = kwargs["max_length"] if early == "never" and a > 0 else kwargs["cur_len"]
        length = end - kwargs["decoder_prompt_len"]
        kwargs["running_beam_scores"] = kwargs["running_beam_scores"] / penalty(length, a)
        return super()._check_early_stop_heuristic(**(kwargs | {"length_penalty": 0.0}))  # type: ignore[misc]
