"""The training objectives of docs/method.md, 1 and what each asks of the factorization order. No torch here."""

from enum import StrEnum


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
