"""One piece: its rows read, predicted and written, whole or not at all; then its line of the ledger."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.predict.config import PredictConfig
from pipelines.predict.fields import FieldError, example_of
from pipelines.predict.inputs import Input, Piece
from pipelines.predict.read import read_part
from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.randomness import key
from pmlm_core.tasks.base import BadRow, Example

PREDICTIONS, REJECTS, LEDGER = "predictions", "rejects", "ledger"
_CHUNK_ROWS = 1024
_CHUNK_CHARACTERS = 1 << 20

Predict = Callable[[Sequence[Any], int], list[dict[str, Any]]]


@dataclass(frozen=True)
class Done:
    """The ledger's entry of a piece.

    Attributes:
        predictions: lines of its file, `bytes` long.
        rejects: how many rows were left out, by reason; listed in a file `reject_bytes` long, if there are any.
    """

    number: int
    predictions: int
    bytes: int
    rejects: dict[str, int]
    reject_bytes: int

    def save(self, output_dir: str) -> None:
        where = storage.join(output_dir, LEDGER, f"{name_of(self.number)}.json")
        storage.write_bytes(where, (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode())

    def is_whole(self, output_dir: str) -> bool:
        """Whether the piece's files are there, as long as they were."""
        if self.rejects and storage.size(file_of(output_dir, self.number, REJECTS)) != self.reject_bytes:
            return False
        return storage.size(file_of(output_dir, self.number)) == self.bytes


def name_of(number: int) -> str:
    """Names sort as numbers do.

    >>> name_of(7)
    'part-0000007'
    """
    return f"part-{number:07d}"


def file_of(output_dir: str, number: int, folder: str = PREDICTIONS) -> str:
    """The piece's file of predictions, or of rejects."""
    return storage.join(output_dir, folder, f"{name_of(number)}.jsonl")


def load_done(output_dir: str, number: int) -> Done | None:
    """The entry of a finished piece; None if it is not finished, or cannot be read (then it is done again)."""
    where = storage.join(output_dir, LEDGER, f"{name_of(number)}.json")
    try:
        done = Done(**json.loads(storage.read_bytes(where)))
    except (DataError, ValueError, TypeError):
        return None
    return done if done.number == number and done.is_whole(output_dir) else None


def do_piece(
    piece: Piece, inputs: Sequence[Input], kind: str, config: PredictConfig, output_dir: str, predict: Predict
) -> Done:
    """Predict one piece. Equal arguments give equal bytes, wherever and however often this runs.

    Args:
        inputs: files by the numbers that the piece's parts name.
        predict: (examples, stream for sampling) -> fields of their predictions.

    Raises:
        DataError: a file has changed, or, under `strict`, a bad row.
        OSError: the disk or the network failed.
    """
    rejects: list[dict[str, Any]] = []
    lines = _lines(piece, inputs, kind, config, predict, rejects)
    written = 0

    def counted() -> Iterator[str]:
        nonlocal written
        for line in lines:
            written += 1
            yield line

    storage.write_lines(file_of(output_dir, piece.number), counted())
    if rejects:
        listed = (json.dumps(entry, ensure_ascii=False) for entry in rejects)
        storage.write_lines(file_of(output_dir, piece.number, REJECTS), listed)
    counts = Counter(entry["reason"] for entry in rejects)
    nbytes = [storage.size(file_of(output_dir, piece.number, folder)) or 0 for folder in (PREDICTIONS, REJECTS)]
    done = Done(piece.number, written, nbytes[0], dict(sorted(counts.items())), nbytes[1] if rejects else 0)
    done.save(output_dir)
    return done


def _lines(
    piece: Piece,
    inputs: Sequence[Input],
    kind: str,
    config: PredictConfig,
    predict: Predict,
    rejects: list[dict[str, Any]],
) -> Iterator[str]:
    chunk: list[tuple[str, Example]] = []
    characters = chunks = 0

    def flush() -> Iterator[str]:
        nonlocal chunk, characters, chunks
        stream = key(config.seed or 0, "predict", piece.number, chunks)
        found = predict([example for _, example in chunk], stream) if chunk else []
        for (file, example), fields in zip(chunk, found, strict=True):
            yield json.dumps({"id": example.id, "row": example.row, "file": file, **fields}, ensure_ascii=False)
        chunk, characters, chunks = [], 0, chunks + 1

    for item in _examples(piece, inputs, kind, config.max_row_bytes):
        if isinstance(item, dict):
            if config.strict:
                raise DataError(f"{item['detail']}; mend it, or leave out --strict to go on without it")
            rejects.append(item)
            continue
        chunk.append(item)
        characters += sum(len(value) for value in vars(item[1]).values() if isinstance(value, str))
        if len(chunk) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            yield from flush()
    yield from flush()


def _examples(
    piece: Piece, inputs: Sequence[Input], kind: str, max_bytes: int
) -> Iterator[tuple[str, Example] | dict[str, Any]]:
    """Examples with their files; entries of `rejects.jsonl` among them."""
    for part in piece.parts:
        each = inputs[part.input]
        for row in read_part(each, part, max_bytes):
            if isinstance(row, BadRow):
                yield {"file": row.file, "row": row.row, "field": None, "reason": row.reason, "detail": row.detail}
                continue
            try:
                yield each.uri, example_of(kind, each.roles, row.fields, row.number, max_bytes)
            except FieldError as error:
                detail = f"{row.file}, row {row.number}: {error.detail}"
                reason = {"reason": error.reason, "detail": detail}
                yield {"file": row.file, "row": row.number, "field": error.field, **reason}
