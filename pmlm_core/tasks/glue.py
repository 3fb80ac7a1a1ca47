"""GLUE (Wang et al., 2019): the nine tasks and the diagnostic set, from the official TSV files or the hub's Parquet.

What differs from file to file is in `SPECS`: names, columns, labels. All official TSV files are unquoted. The official
`index` column counts the rows of a file from 0 and is what submissions refer to.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.tasks import scoring, submission
from pmlm_core.tasks.base import BadRow, Example, Recipe, Task, TextExample
from pmlm_core.tasks.fields import label_of, number_of, required, text_of
from pmlm_core.tasks.files import SPLIT_NAMES, find_files, folder_of, form, name_patterns
from pmlm_core.tasks.rows import Row, as_examples, parquet_rows, tsv_rows

# A point in the middle of the paper's grid (batch 16/32; 5e-6 .. 3e-5; warm-up 0.1/0.2; decay 0.01/0.1; epochs 10/15).
RECIPE = Recipe(
    batch_size=32, learning_rate=2e-5, warmup_ratio=0.1, weight_decay=0.01, num_train_epochs=10, max_length=512
)


@dataclass(frozen=True)
class Spec:
    """How one task's files look.

    Attributes:
        folder: official name of its folder, and of its submission.
        texts: column names of the texts in TSV files; `hub_texts` in the hub's Parquet, where they differ.
        label: column of the label in TSV files (Parquet: "label").
        headers: columns of splits whose file has no header.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    hub_texts: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    other_folders: tuple[str, ...] = ()


_ENTAILS = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
_HYPOTHESIS = ("premise", "hypothesis")
_MNLI = ("entailment", "neutral", "contradiction")
_YES_NO = ("0", "1")

SPECS = {
    "cola": Spec("CoLA", ("sentence",), "label", _YES_NO, ("matthews", "accuracy"),
                 headers=("source", "label", "original_label", "sentence")),
    "sst2": Spec("SST-2", ("sentence",), "label", _YES_NO, ("accuracy",)),
    "mrpc": Spec("MRPC", ("#1 String", "#2 String"), "Quality", _YES_NO, ("accuracy", "f1"), hub_texts=_PAIR),
    "qqp": Spec("QQP", ("question1", "question2"), "is_duplicate", _YES_NO, ("accuracy", "f1")),
    "stsb": Spec("STS-B", _PAIR, "score", (), ("pearson", "spearman")),
    "mnli": Spec("MNLI", _PAIR, "gold_label", _MNLI, ("accuracy",), hub_texts=_HYPOTHESIS),
    "qnli": Spec("QNLI", ("question", "sentence"), "label", _ENTAILS, ("accuracy",)),
    "rte": Spec("RTE", _PAIR, "label", _ENTAILS, ("accuracy",)),
    "wnli": Spec("WNLI", _PAIR, "label", _YES_NO, ("accuracy",)),
    "ax": Spec("AX", _PAIR, "label", _MNLI, ("matthews",), hub_texts=_HYPOTHESIS, other_folders=("diagnostic",)),
}  # fmt: skip
_MNLI_ENDS = {"matched": "MNLI-m", "mismatched": "MNLI-mm", "ax": "AX"}


def glue_task(name: str) -> Task:
    """The task of one of `SPECS`' names.

    `metric` is the one of the paper's tables: accuracy, CoLA Matthews' correlation, STS-B Pearson's; F1 and Spearman's
    are reported beside them. AX has one split, "test", no labels, and MNLI's classes: a model of MNLI predicts it, as
    its own split "test_ax".
    """
    spec = SPECS[name]
    splits: tuple[str, ...] = ("train", "dev", "test")
    labelled = splits[:2]
    if name == "mnli":
        splits = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched", "test_ax")
        labelled = splits[:3]
    elif name == "ax":
        splits, labelled = ("test",), ()
    regression = not spec.labels
    return Task(
        name=name,
        kind="regression" if regression else "classification",
        metric=spec.metrics[0],
        splits=splits,
        labelled=labelled,
        recipe=RECIPE,
        read=partial(_read, name),
        score=partial(scoring.score_regression if regression else scoring.score_labels, metrics=spec.metrics),
        write_predictions=partial(_write, name),
        scorers=partial(scoring.describe, *spec.metrics),
        labels=spec.labels,
    )


def _read(name: str, data_dir: str, split: str) -> Iterator[Example | BadRow]:
    """Read a split; see `Task.read`.

    Raises:
        DataError: no such file, or it lacks a column.
    """
    if split == "test_ax":
        name, split = "ax", "test"
    spec = SPECS[name]
    files = find_files(
        data_dir,
        _patterns(name, split),
        what=f"split '{split}' of task '{name}'",
        folders=(spec.folder, name, *spec.other_folders, ""),
    )
    if form(files[0]) == ".parquet":
        texts = spec.hub_texts or spec.texts
        records = (row for file in files for row in parquet_rows(file, texts, ["label"]))
        return as_examples(records, partial(_example, spec, split, texts, "label"))
    file = files[0]
    headers = spec.headers if not split.startswith("test") else ()
    label = [] if split.startswith("test") else [spec.label]
    rows: Iterator[Row | BadRow] = tsv_rows(file, [*spec.texts, *label], headers or None)
    if "msr_paraphrase_train" in file:
        rows = _msr_part(file, split, rows)
    return as_examples(rows, partial(_example, spec, split, spec.texts, spec.label))


def _example(spec: Spec, split: str, texts: Sequence[str], label: str, row: Row, place: int) -> TextExample:
    fields = row.fields
    is_test = split.startswith("test")
    found: str | float | None
    if spec.labels:
        found = label_of(fields, label, spec.labels, by_index=form(row.file) == ".parquet")
    else:
        # The hub marks the test set's missing scores with -1.
        found = number_of(fields, label, -1.0 if is_test else 0.0, 5.0)
        found = None if found == -1.0 else found
    return TextExample(
        id=str(fields.get("index") or place) if is_test else str(place),
        row=row.number,
        text_a=text_of(fields, texts[0]),
        text_b=text_of(fields, texts[1]) if len(texts) > 1 else None,
        label=found if is_test else required(found, label),
    )


def _patterns(name: str, split: str) -> list[str]:
    kind, _, end = split.partition("_")
    stems = [f"{stem}_{end}" if end else stem for stem in SPLIT_NAMES[kind]]
    if name == "ax":
        stems = ["diagnostic", "AX", *stems]
    patterns = name_patterns(stems, (".tsv", ".parquet"))
    if name == "mrpc":
        patterns.append("msr_paraphrase_test.txt" if split == "test" else "msr_paraphrase_train.txt")
    return patterns


def _msr_part(file: str, split: str, rows: Iterator[Row | BadRow]) -> Iterator[Row | BadRow]:
    """Divide Microsoft's original training file as GLUE does, by the pairs of ids in `dev_ids.tsv` beside it."""
    ids = storage.join(folder_of(file), "dev_ids.tsv")
    if not storage.exists(ids):
        raise DataError(f"{file} holds train and dev together; GLUE's list {ids} is needed to tell them apart")
    pairs = {tuple(line.split()) for line in storage.read_bytes(ids).decode("utf-8-sig").splitlines()}
    for row in rows:
        if isinstance(row, BadRow):
            if split == "train":  # reported once
                yield row
        elif ((row.fields.get("#1 ID"), row.fields.get("#2 ID")) in pairs) == (split == "dev"):
            yield row


def _submission_name(name: str, split: str) -> str:
    """The official file name for a test set; for other splits and part of one ("part-of-test") one that cannot be
    taken for it."""
    kind, _, end = split.partition("_")
    official = _MNLI_ENDS.get(end, SPECS[name].folder)
    return f"{official}.tsv" if kind == "test" else f"{official}.{kind}.tsv"


def _write(
    name: str, folder: str, split: str, examples: Sequence[TextExample], predictions: Mapping[str, str | float]
) -> list[str]:
    """Write `index<TAB>prediction` as gluebenchmark.com takes it: labels by name, similarities from 0 to 5."""
    file = storage.join(folder, _submission_name(name, split))
    return submission.write_table(file, "index", examples, predictions, bounds=(0.0, 5.0))
