"""Which columns hold what, found once for each file; and rows made into examples by them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.predict.config import COLUMNS, PredictConfig
from pipelines.predict.finetuned import Finetuned
from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Example, QaExample, SourceTarget, TextExample
from pmlm_core.tasks.fields import checked, label_text, text_of, text_or_tokens
from pmlm_core.tasks.glue import SPECS
from pmlm_core.tasks.question_generation import SEPARATOR
from pmlm_core.tasks.rows import RowError
from pmlm_core.tasks.seq2seq import FIELD_NAMES
from pmlm_core.tasks.squad import answers_in

QUESTION_GENERATION = ("squad_qg", "squad_qg_reversed")

Roles = Mapping[str, str]
"""What a text is for ("text", "question", "id" ...) -> the column that holds it."""


class FieldError(RowError):
    """Why a row cannot be used, and the field to blame."""

    def __init__(self, reason: str, detail: str, field: str | None) -> None:
        super().__init__(reason, detail)
        self.field = field


def wanted(config: PredictConfig, finetuned: Finetuned) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Columns to look for, the likeliest first, by role; and the roles that must be there."""
    task = finetuned.task
    usual: dict[str, tuple[str, ...]] = {"id": ("id",)}
    needed: set[str]
    if task.kind == "question_answering":
        usual |= {"question": ("question",), "context": ("context",)}
        needed = {"question", "context"}
    elif task.kind == "generation":
        names = ["src", "source", "text", *(source for source, _ in FIELD_NAMES)]
        usual |= {"source": tuple(dict.fromkeys(names))}
        needed = {"source"}
    else:
        spec = SPECS.get(task.name)
        texts = (spec.texts, spec.hub_texts) if spec else ()
        usual |= {
            "text": (*(names[0] for names in texts if names), "text"),
            "text_pair": (*(names[1] for names in texts if len(names) > 1), "text_pair"),
        }
        if spec:
            usual["id"] = ("id", "index", "idx")
        pairs = len(usual["text_pair"]) > 1 or "text_pair_column" in finetuned.columns
        needed = {"text", "text_pair"} if pairs else {"text"}
    for role in usual:
        trained = finetuned.columns.get(f"{role}_column")
        if trained:
            usual[role] = tuple(dict.fromkeys((trained, *usual[role])))
    for option in COLUMNS:
        asked = getattr(config, option)
        if asked is not None:
            usual[option.removesuffix("_column")] = (asked,)
            needed.add(option.removesuffix("_column"))
    return usual, needed


def found_in(
    file: str, names: Sequence[str], usual: Mapping[str, tuple[str, ...]], needed: Iterable[str], task: str
) -> dict[str, str]:
    """The columns of one file by role.

    Raises:
        DataError: it lacks one that is needed.
    """
    roles = {
        role: column for role, columns in usual.items() if (column := next((c for c in columns if c in names), None))
    }
    if task in QUESTION_GENERATION and "source" not in roles and "context" in names:
        answer = next((name for name in ("answer", "answers") if name in names), None)
        if answer is not None:
            return {**roles, "context": "context", answer: answer}
    for role in usual:
        if role in needed and role not in roles:
            looked = " or ".join(f"'{column}'" for column in usual[role])
            shown = ", ".join(repr(name) for name in names[:20]) or "none"
            raise DataError(f"{file}: no column {looked} (--{role}_column names another); columns found: {shown}")
    return roles


def example_of(kind: str, roles: Roles, fields: Mapping[str, Any], number: int, max_bytes: int) -> Example:
    """The example that a row stands for.

    Raises:
        FieldError: a text is missing, empty, too long, or no text.
    """
    identifier = _id(fields, roles.get("id"), number)

    def text(role: str, *, may_be_empty: bool = False) -> str:
        column = roles[role]
        try:
            value = (
                text_or_tokens(fields.get(column), f"field '{column}'") if kind == "generation" and column in fields
                else text_of(fields, column)
            )  # fmt: skip
        except RowError as error:
            raise FieldError(error.reason, error.detail, column) from None
        if not may_be_empty and not value.strip():
            raise FieldError("empty text", f"field '{column}' is empty", column)
        if len(value) > max_bytes:
            detail = f"field '{column}' has {len(value):,} characters; max_row_bytes is {max_bytes:,}"
            raise FieldError("row too long", detail, column)
        return value

    if kind == "question_answering":
        return QaExample(identifier, number, text("question"), text("context"))
    if kind == "generation":
        if "source" in roles:
            return SourceTarget(identifier, number, text("source"))
        answer = text("answer") if "answer" in roles else _first_answer(fields, roles["answers"], text("context"))
        return SourceTarget(identifier, number, answer.strip() + SEPARATOR + text("context"))
    # GLUE has empty texts here and there, and wants a prediction for them; so may a service.
    pair = text("text_pair", may_be_empty=True) if "text_pair" in roles else None
    return TextExample(identifier, number, text("text", may_be_empty=True), pair)


def _first_answer(fields: Mapping[str, Any], column: str, context: str) -> str:
    try:
        answers, _ = answers_in(fields.get(column) or [], context)
    except RowError as error:
        raise FieldError(error.reason, error.detail, column) from None
    if not answers:
        raise FieldError("no answer", f"field '{column}' is empty", column)
    return answers[0][0]


def _id(fields: Mapping[str, Any], column: str | None, number: int) -> str:
    if column is None:
        return str(number)
    value = fields.get(column)
    if value is None or value == "" or isinstance(value, dict | list):
        raise FieldError("missing field", f"field '{column}' holds no id", column)
    where = f"field '{column}'"
    try:
        return checked(label_text(value, where), where)
    except RowError as error:
        raise FieldError(error.reason, error.detail, column) from None
