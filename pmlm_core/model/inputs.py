"""What a forward pass is given, looked at before it is used."""

from torch import Tensor


def as_ids(x_BN: Tensor, ids_BN: Tensor, name: str) -> Tensor:
    """Mask, segments or positions in the shape of the ids, [B, N]: a row for each of theirs, or one for all.

    >>> as_ids(torch.tensor([[1, 0]]), torch.tensor([[7, 8], [9, 6]]), "attention_mask").tolist()
    [[1, 0], [1, 0]]

    Raises:
        ValueError: they have another shape.
    """
    rows, n = ids_BN.shape
    if x_BN.shape == ids_BN.shape:
        return x_BN
    if x_BN.shape != (1, n):
        raise ValueError(
            f"{name} has the shape {tuple(x_BN.shape)} and input_ids {rows, n}; give it a row for each of theirs, or "
            "one for all."
        )
    return x_BN.expand(rows, n)
