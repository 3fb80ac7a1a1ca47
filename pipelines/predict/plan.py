"""The plan of a run, written once: a restart takes it as it is, and other inputs, options or models are refused.

OUTPUT_DIR/
    plan.json                           model, options, files, pieces
    predictions/part-0000000.jsonl ...  a file for each piece; the order of their names is that of the input
    rejects/part-0000000.jsonl ...      of pieces with bad rows: file, row, field, reason of each
    ledger/part-0000000.json ...        written after those: the piece is done
    predictions.jsonl, rejects.jsonl    all of them joined
    summary.json                        written last: it says that everything is done
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.finetune.families import WITHOUT_BEAMS
from pipelines.predict.config import PredictConfig
from pipelines.predict.fields import wanted
from pipelines.predict.finetuned import Finetuned
from pipelines.predict.inputs import Input, Piece
from pipelines.predict.scan import Columns, Scan
from pmlm_core import storage
from pmlm_core.errors import ConfigError, DataError

PLAN = "plan.json"
FORMAT = 1
_SHOWN = {"can_be_unanswerable": "whether null_threshold is given"}
"""What a user may not know by its name, in words."""


@dataclass(frozen=True)
class Plan:
    """What is to be predicted.

    Attributes:
        identity: all that decides the output.
        broken: entries of `rejects.jsonl` for files that end early.
    """

    identity: Mapping[str, Any]
    inputs: Sequence[Input]
    pieces: Sequence[Piece]
    broken: Sequence[Mapping[str, Any]]

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.inputs)

    def save(self, output_dir: str) -> None:
        content = {
            "format_version": FORMAT,
            "identity": self.identity,
            "inputs": [asdict(each) for each in self.inputs],
            "pieces": [piece.as_list() for piece in self.pieces],
            "broken": self.broken,
        }
        storage.write_bytes(storage.join(output_dir, PLAN), (json.dumps(content, ensure_ascii=False) + "\n").encode())


def identity_of(config: PredictConfig, finetuned: Finetuned, inputs: Sequence[Input]) -> dict[str, Any]:
    """All that decides the output: weights, tokenizer, options, files and their states."""
    options = config.deciding()
    if finetuned.inferred and finetuned.task.kind == "question_answering":  # elsewhere the folder of the model says it
        options["can_be_unanswerable"] = finetuned.task.can_be_unanswerable
    content = {
        "model": {"weights": finetuned.source.sha256, "tokenizer": finetuned.source.tokenizer},
        "options": options,
        "generation": _deciding(finetuned.generation),
        "recipe": dict(vars(finetuned.recipe)),
        "inputs": [each.state for each in inputs],
    }
    return json.loads(json.dumps(content))


def _deciding(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Without beams, what is for beams decides nothing, and the plans of several versions say several things of it."""
    greedy = int(generation.get("num_beams") or 1) == 1
    passed_over = {"transformers_version", *(WITHOUT_BEAMS if greedy else ())}
    return {name: value for name, value in generation.items() if name not in passed_over}


def load_plan(output_dir: str) -> Plan | None:
    """The plan in the folder, None if there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    where = storage.join(output_dir, PLAN)
    if not storage.exists(where):
        return None
    try:
        raw = json.loads(storage.read_bytes(where))
        if raw["format_version"] != FORMAT:
            raise ValueError(f"format_version {raw['format_version']}, not {FORMAT}")
        return Plan(
            raw["identity"],
            [Input.from_dict(each) for each in raw["inputs"]],
            [Piece.from_list(number, piece) for number, piece in enumerate(raw["pieces"])],
            raw["broken"],
        )
    except (DataError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where} cannot be read ({error!r}): choose another output_dir") from None


def check_same(output_dir: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse another run in the folder of one.

    Raises:
        ConfigError: with what is different.
    """
    before = {**before, "generation": _deciding(before["generation"])}
    if before == now:
        return
    other_model = before["model"] != now["model"]
    differences = ["the model's weights or tokenizer are others"] * other_model
    differences += [
        f"{_SHOWN.get(name, name)} was {before[group].get(name)!r} and is {now[group].get(name)!r}"
        for group in (["options"] if other_model else ["options", "recipe", "generation"])  # the others are the model's
        for name in sorted({*before[group], *now[group]})
        if before[group].get(name) != now[group].get(name)
    ]
    old, new = ({state[0]: state for state in each["inputs"]} for each in (before, now))
    for uri in sorted({*old, *new}):
        if old.get(uri) != new.get(uri):
            what = "was not among them" if uri not in old else "is not named now" if uri not in new else "has changed"
            differences.append(f"input {uri} {what}")
    shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
    raise ConfigError(
        f"output_dir {output_dir} holds predictions that were made otherwise: {shown}. To go on with them, give the "
        "same; for others, choose another output_dir"
    )


def make_plan(config: PredictConfig, finetuned: Finetuned, inputs: Sequence[Input]) -> Plan:
    """Read all files through and cut them.

    Raises:
        DataError: a file cannot be used, or there is not a row.
    """
    usual, needed = wanted(config, finetuned)
    columns = Columns(usual, frozenset(needed), finetuned.task.name)
    scan = Scan(config.piece_rows, config.max_row_bytes, columns)
    for each in inputs:
        scan.add(each)
    scan.finish()
    if not scan.pieces:
        broken = f": {scan.broken[0]['detail']}" if scan.broken else ""
        raise DataError(
            f"{inputs[0].uri}{' and the others' * (len(inputs) > 1)}: there is not a row to predict{broken}"
        )
    return Plan(identity_of(config, finetuned, inputs), scan.inputs, scan.pieces, scan.broken)
