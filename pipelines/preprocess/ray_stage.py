"""The only part of preprocessing that knows Ray: each Ray task does a whole piece and returns one small row.

Token blocks never pass through the object store: moving them would cost more than making them.
"""

import errno
import pickle
import platform
import traceback
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from pipelines.ray_map import over_ray
from pmlm_core.corpus.ledger import LedgerRow
from pmlm_core.corpus.pieces import Piece
from pmlm_core.corpus.shard_job import ShardOptions, run_piece
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import DataError, PmlmError


class Outcome:
    """What came back of a piece: a ledger row (without its list of rejects), or the reason why there is none."""

    def __init__(self, number: int, row: LedgerRow | None, error: str, fatal: bool, peak_bytes: int) -> None:
        self.number = number
        self.row = row
        self.error = error
        self.fatal = fatal
        self.peak_bytes = peak_bytes


@lru_cache(maxsize=2)
def _tokenizer(folder: str, fingerprint: str) -> TextTokenizer:
    """The tokenizer in the output folder as this machine sees it, loaded once for all pieces of a process.

    Raises:
        DataError: it is missing here, or is not the driver's.
    """
    try:
        tokenizer = TextTokenizer.load(folder)
    except DataError as error:
        raise DataError(f"machine {platform.node()}: {error}; is output_dir seen by every machine?") from None
    if tokenizer.fingerprint != fingerprint:
        raise DataError(
            f"machine {platform.node()}: the tokenizer in {folder} has fingerprint {tokenizer.fingerprint[:12]}, this "
            f"run has {fingerprint[:12]}; is output_dir the same folder on every machine?"
        )
    return tokenizer


def do_piece(
    item: dict[str, Any], *, options: ShardOptions, folder: str, fingerprint: str, output_dir: str, strict: bool
) -> dict[str, Any]:
    """Do one piece in a worker process; errors come back as data, so that one bad disk does not stop the others."""
    piece: Piece = pickle.loads(item["piece"])
    error, fatal, text = "", False, ""
    try:
        row = run_piece(piece, options, _tokenizer(folder, fingerprint), output_dir, strict)
        text = row.slim().to_json()
    except PmlmError as problem:
        error, fatal = str(problem), strict
    except OSError as problem:
        files = ", ".join(span.source.uri for span in piece.spans[:3])
        full = f"; the disk of {output_dir} is full" * (problem.errno == errno.ENOSPC)
        error = f"{files}: {type(problem).__name__}: {problem}{full}"
    except Exception:
        # A fault of ours: the trace is what a report of it needs.
        error, fatal = f"{piece.spans[0].source.uri}: {traceback.format_exc()}", True
    return {"number": item["number"], "row": text, "error": error, "fatal": fatal, "peak_bytes": peak_memory()}


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_pieces(
    pieces: dict[int, Piece],
    options: ShardOptions,
    tokenizer_dir: str,
    output_dir: str,
    *,
    tokenizer_fingerprint: str,
    strict: bool,
    num_workers: int | None,
) -> Iterator[Outcome]:
    """Do `pieces` over the connected Ray, yielding each as it is finished, in any order; the largest are begun first.

    Args:
        pieces: by number.
        tokenizer_dir: folder that every worker can read.
        tokenizer_fingerprint: of the tokenizer that must be there.
        num_workers: tasks at a time; None for as many as there are CPUs.

    Raises:
        DataError: worker processes died again and again.
    """
    # The largest first: a large one begun last would keep one worker busy long after the others have nothing left.
    largest_first = sorted(pieces.items(), key=lambda numbered: -numbered[1].weight)
    items = [{"number": number, "piece": pickle.dumps(piece)} for number, piece in largest_first]
    task = partial(
        do_piece,
        options=options,
        folder=tokenizer_dir,
        fingerprint=tokenizer_fingerprint,
        output_dir=output_dir,
        strict=strict,
    )
    done = over_ray(
        task,
        items,
        num_workers=num_workers,
        what="finish",
        kept="what is done is kept, the same command goes on from there",
    )
    for row in done:
        ledger = LedgerRow.from_json(row["row"]) if row["row"] else None
        yield Outcome(row["number"], ledger, row["error"], bool(row["fatal"]), int(row["peak_bytes"]))
