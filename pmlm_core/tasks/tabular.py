"""Classification and regression of one's own data: TSV, CSV, JSON lines or Parquet with columns named by option."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pmlm_core import storage
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.tasks import scoring, submission
from pmlm_core.tasks.base import BadRow, Task, TextExample
from pmlm_core.tasks.fields import checked, label_of, label_text, number_of, required, text_of
from pmlm_core.tasks.files import find_files
from pmlm_core.tasks.glue import RECIPE
from pmlm_core.tasks.rows import MissingColumn, Row, RowError, as_examples, bad_row, read_rows

_MAX_LABELS = 1000


@dataclass(frozen=True)
class Columns:
    """Names of columns. TSV files are read without quoting, CSV files with.

    Attributes:
        text_pair: of the second text; None for single texts.
        id: None = an example is called by its place in the file, from 0.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    id: str | None = None

    def needed(self, labelled: bool) -> list[str]:
        names = [self.text, self.text_pair, self.id, self.label if labelled else None]
        return [name for name in names if name is not None]


def classification_task(
    patterns: Mapping[str, Sequence[str]],
    columns: Columns,
    labels: Sequence[str] | None,
    data_dir: str | None,
    several: bool = False,
) -> Task:
    """Classification over tables.

    Args:
        patterns: of the files of "train", "dev", "test"; see `find_files`.
        labels: in the order of the model's outputs; None = those of the training file, sorted.
        data_dir: where that file is; needed only to find the labels.

    Raises:
        ConfigError: neither labels nor `data_dir`, or fewer than two labels, or far too many.
    """
    if labels is None:
        if data_dir is None:
            raise ConfigError("task 'classification' needs its labels, or the data_dir whose training file has them")
        files = find_files(data_dir, patterns["train"], what="split 'train' of task 'classification'", several=several)
        labels = _labels_in(files, columns.label)
    labels = tuple(label_text(label, "labels") for label in labels)
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ConfigError(
            f"task 'classification' needs two labels or more, each once; got {', '.join(map(repr, labels)) or 'none'}"
            + "; write them with spaces between, as --labels yes no" * any("," in label for label in labels)
        )
    # F1 is that of class "1", as GLUE has it.
    metrics = ("accuracy", "f1", "matthews") if set(labels) == {"0", "1"} else ("accuracy", "f1_macro", "matthews")
    return Task(
        name="classification",
        kind="classification",
        metric="accuracy",
        splits=("train", "dev", "test"),
        labelled=("train", "dev"),
        recipe=RECIPE,
        read=partial(_read, "classification", patterns, columns, labels, several),
        score=partial(scoring.score_labels, metrics=metrics),
        write_predictions=_write,
        scorers=partial(scoring.describe, *metrics),
        labels=labels,
    )


def regression_task(patterns: Mapping[str, Sequence[str]], columns: Columns, several: bool = False) -> Task:
    """Regression over tables; the label is any finite number."""
    return Task(
        name="regression",
        kind="regression",
        metric="pearson",
        splits=("train", "dev", "test"),
        labelled=("train", "dev"),
        recipe=RECIPE,
        read=partial(_read, "regression", patterns, columns, (), several),
        score=scoring.score_regression,
        write_predictions=_write,
        scorers=partial(scoring.describe, "pearson", "spearman"),
    )


def _labels_in(files: Sequence[str], column: str) -> list[str]:
    """Distinct labels of files, numbers in the order of numbers. Bad rows are passed over: reading reports them.

    Raises:
        ConfigError: far too many labels.
        DataError: no row has one that can be used.
    """
    found: set[str] = set()
    bad: BadRow | None = None
    for row in _named(read_rows(files, [column])):
        if isinstance(row, BadRow) or (value := row.fields.get(column)) is None or value == "":
            continue
        try:
            found.add(checked(label_text(value, f"field '{column}'"), f"field '{column}'"))
        except RowError as error:
            bad = bad or bad_row(row.file, row.number, error)
            continue
        if len(found) > _MAX_LABELS:
            raise ConfigError(
                f"{files[0]}: column '{column}' holds more than {_MAX_LABELS} different labels; is it the right "
                "column, or is this a regression?"
            )
    if bad and not found:
        raise DataError(f"{bad.detail}; no row has a label that can be used")
    try:
        return sorted(found, key=lambda label: (float(label), label))  # "1" and "1.0" are two labels
    except ValueError:
        return sorted(found)


def _named(rows: Iterator[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows; a column that is missing may have another name, which options tell."""
    try:
        yield from rows
    except MissingColumn as error:
        raise DataError(f"{error}; --text_column, --text_pair_column and --label_column name them") from None


def _read(
    name: str,
    patterns: Mapping[str, Sequence[str]],
    columns: Columns,
    labels: Sequence[str],
    several: bool,
    data_dir: str,
    split: str,
) -> Iterator[TextExample | BadRow]:
    files = find_files(data_dir, patterns[split], what=f"split '{split}' of task '{name}'", several=several)
    rows = _named(read_rows(files, columns.needed(split != "test"), [columns.label]))
    return as_examples(rows, _Maker(columns, tuple(labels), split != "test"))


@dataclass
class _Maker:
    """Makes examples of rows; no labels means a regression."""

    columns: Columns
    labels: tuple[str, ...]
    needs_label: bool
    seen: set[str] = field(default_factory=set)

    def __call__(self, row: Row, place: int) -> TextExample:
        columns, fields = self.columns, row.fields
        label = label_of(fields, columns.label, self.labels) if self.labels else number_of(fields, columns.label)
        if self.needs_label:
            required(label, columns.label)
        text_a = text_of(fields, columns.text)
        text_b = text_of(fields, columns.text_pair) if columns.text_pair else None
        if self.needs_label and not text_a.strip() and not (text_b or "").strip():
            raise RowError("empty text", f"field '{columns.text}' is empty")
        return TextExample(self._id(fields, place), row.number, text_a, text_b, label)

    def _id(self, fields: Mapping[str, object], place: int) -> str:
        if self.columns.id is None:
            return str(place)
        value = fields.get(self.columns.id)
        if value is None or value == "":
            raise RowError("missing field", f"field '{self.columns.id}' holds no id")
        where = f"field '{self.columns.id}'"
        identifier = checked(label_text(value, where), where)
        if identifier in self.seen:
            raise RowError("duplicate id", f"field '{self.columns.id}': '{identifier}' stands twice")
        self.seen.add(identifier)
        return identifier


def _write(
    folder: str, split: str, examples: Sequence[TextExample], predictions: Mapping[str, str | float]
) -> list[str]:
    """Write `id<TAB>prediction` to `predictions.SPLIT.tsv`."""
    return submission.write_table(storage.join(folder, f"predictions.{split}.tsv"), "id", examples, predictions)
