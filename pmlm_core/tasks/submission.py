"""Writing predictions in the forms that benchmarks take. Files are written whole or not at all."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer, Example, QaExample, SourceTarget, TextExample


def prediction_of(example: Example, predictions: Mapping[str, Any]) -> Any:
    """The prediction for an example.

    Raises:
        DataError: there is none.
    """
    try:
        return predictions[example.id]
    except KeyError:
        raise DataError(
            f"no prediction for example '{example.id}' (row {example.row}); predict the whole split"
        ) from None


def write_table(
    file: str,
    id_column: str,
    examples: Sequence[TextExample],
    predictions: Mapping[str, str | float],
    bounds: tuple[float, float] | None = None,
) -> list[str]:
    """Write a TSV file of ids and predictions under a header.

    Args:
        bounds: numbers are clipped to these and written with three decimals, as GLUE's sample submission is.
    """

    def table() -> Iterator[str]:
        yield f"{id_column}\tprediction"
        for example in examples:
            value = prediction_of(example, predictions)
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = f"{min(max(value, bounds[0]), bounds[1]):.3f}" if bounds else repr(float(value))
            yield f"{one_line(example.id)}\t{one_line(value)}"

    storage.write_lines(file, table())
    return [file]


def write_squad(
    folder: str, split: str, examples: Sequence[QaExample], predictions: Mapping[str, Answer], *, null_odds: bool
) -> list[str]:
    """Write `{id: text}` as the official evaluation takes it, and the n-best lists as BERT's scripts do.

    Args:
        null_odds: write `{id: null score - best span's score}` too, the official `--na-prob-file`. A question that has
            no null score is left out of it.
    """
    answers = {example.id: prediction_of(example, predictions) for example in examples}
    contents: dict[str, dict[str, Any]] = {"predictions": {key: answer.text for key, answer in answers.items()}}
    if any(answer.n_best for answer in answers.values()):
        contents["nbest_predictions"] = {key: [dict(each) for each in a.n_best] for key, a in answers.items()}
    if null_odds:
        contents["null_odds"] = {key: a.null_score - a.score for key, a in answers.items() if a.null_score is not None}
    files = []
    for name, content in contents.items():
        file = storage.join(folder, f"{name}.{split}.json")
        storage.write_bytes(file, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
        files.append(file)
    return files


def write_texts(folder: str, split: str, examples: Sequence[SourceTarget], predictions: Mapping[str, str]) -> list[str]:
    """Write generated texts, one a line in the order of the examples, and as JSON lines with ids and line breaks."""
    texts = [(example.id, prediction_of(example, predictions)) for example in examples]
    plain = storage.join(folder, f"predictions.{split}.txt")
    records = storage.join(folder, f"predictions.{split}.jsonl")
    storage.write_lines(plain, (one_line(text) for _, text in texts))
    storage.write_lines(
        records, (json.dumps({"id": key, "prediction": text}, ensure_ascii=False) for key, text in texts)
    )
    return [plain, records]


def one_line(value: object) -> str:
    """Text with every kind of line break and tabs made spaces.

    >>> one_line("a\\tb\\r\\nc ")
    'a b c'
    """
    return " ".join(part.strip() for part in str(value).replace("\t", " ").splitlines()).strip()
