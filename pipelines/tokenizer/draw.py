"""Drawing the sample: over Ray where the input is large, in this process where Ray would take longer to start."""

import pickle
from functools import partial
from typing import Any

from pipelines.cluster import connected
from pipelines.ray_map import over_ray
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.sampling import Sample, Share, sample_piece
from pmlm_core.errors import DataError

# Reading runs at tens of megabytes a second and Ray takes some seconds to start.
SMALL_BYTES = 128 << 20


def draw(
    shares: list[Share], fmt: InputFormat, seed: int, num_workers: int | None, small: int = SMALL_BYTES
) -> list[Sample]:
    """Sample every share; the result does not depend on where or by how many workers it was done.

    Raises:
        DataError: an input could not be read, with its name.
    """
    weight = sum(span.weight for share in shares for span in share.piece.spans)
    if weight <= small or len(shares) == 1:
        return [_unpack(_sample({"share": pickle.dumps(share)}, fmt, seed))[1] for share in shares]
    with connected(num_workers):
        items = [{"share": pickle.dumps(share)} for share in shares]
        task = partial(_sample, fmt=fmt, seed=seed)
        found = dict(map(_unpack, over_ray(task, items, num_workers=num_workers, what="finish drawing the sample")))
    return [found[share.number] for share in shares]


def _sample(item: dict[str, Any], fmt: InputFormat, seed: int) -> dict[str, Any]:
    """Do one share; a plain failure to read comes back as data, because Ray would wrap it in its own trace."""
    share: Share = pickle.loads(item["share"])
    try:
        return {"number": share.number, "sample": pickle.dumps(sample_piece(share, fmt, seed)), "error": ""}
    except OSError as error:
        names = ", ".join(span.source.uri for span in share.piece.spans[:3])
        return {"number": share.number, "sample": b"", "error": f"{names}: {error}"}


def _unpack(row: dict[str, Any]) -> tuple[int, Sample]:
    if row["error"]:
        raise DataError(f"{row['error']}; the input cannot be sampled, run the same command when it can be read")
    return int(row["number"]), pickle.loads(row["sample"])
