"""The training objectives of METHOD section 1 and what each asks of the factorization order. No torch here."""

from enum import StrEnum

import numpy as np


class Objective(StrEnum):
    """Which losses are summed.

    >>> Objective("AE+PAR").has_ae, Objective("AE+PAR").has_par, Objective("AE").has_par
    (True, True, False)
    """

    AE = "AE"
    PAR = "PAR"
    AR = "AR"
    AE_AR = "AE+AR"
    AE_PAR = "AE+PAR"

    @property
    def has_ae(self) -> bool:
        """Every masked token is predicted from the unmasked context, at its conventional mask."""
        return self in (Objective.AE, Objective.AE_AR, Objective.AE_PAR)

    @property
    def has_par(self) -> bool:
        """Masked tokens are predicted step by step at pseudo masks: the sequence gets an appended part."""
        return self is not Objective.AE

    @property
    def one_token_per_step(self) -> bool:
        """AR is PAR whose steps hold one token each."""
        return self in (Objective.AR, Objective.AE_AR)

    def rewrite_step_lengths(self, step_lengths: np.ndarray) -> np.ndarray:
        """Lengths of the factorization steps under this objective, for one row.

        The tokens keep their order (steps as drawn, a block from left to right); AR only cuts the blocks up.

        >>> Objective.AR.rewrite_step_lengths(np.array([2, 1])).tolist()
        [1, 1, 1]
        >>> Objective.PAR.rewrite_step_lengths(np.array([2, 1])).tolist()
        [2, 1]
        """
        if not self.one_token_per_step:
            return step_lengths
        return np.ones(int(step_lengths.sum()), dtype=step_lengths.dtype)
