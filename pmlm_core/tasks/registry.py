"""Tasks by name. Importing this is cheap: scorers and the hub's client are imported when they are used."""

from collections.abc import Callable, Sequence
from typing import Any

from pmlm_core.errors import ConfigError, near
from pmlm_core.tasks import glue, question_generation, seq2seq, squad, summarization, tabular
from pmlm_core.tasks.base import Task
from pmlm_core.tasks.files import SPLIT_NAMES, name_patterns
from pmlm_core.tasks.rows import TABLES

_BENCHMARKS: dict[str, Callable[[], Task]] = {
    **{name: lambda name=name: glue.glue_task(name) for name in glue.SPECS},  # type: ignore[misc]
    "squad1.1": lambda: squad.squad_task("1.1"),
    "squad2.0": lambda: squad.squad_task("2.0"),
    "cnn_dailymail": lambda: summarization.summarization_task("cnn_dailymail"),
    "xsum": lambda: summarization.summarization_task("xsum"),
    "squad_qg": lambda: question_generation.question_generation_task("squad_qg"),
    "squad_qg_reversed": lambda: question_generation.question_generation_task("squad_qg_reversed"),
}
_FILES = ("train_file", "validation_file", "test_file")
_TABLE_OPTIONS = (*_FILES, "text_column", "text_pair_column", "label_column", "id_column")
OPTIONS: dict[str, tuple[str, ...]] = {
    "classification": (*_TABLE_OPTIONS, "labels", "data_dir"),
    "regression": _TABLE_OPTIONS,
    "qa": (*_FILES, "can_be_unanswerable"),
    "seq2seq": (*_FILES, "id_column"),
}
"""Options of the general tasks; the benchmarks have none."""
TASKS = (*_BENCHMARKS, *OPTIONS)


def check_name(name: str) -> None:
    """Look whether there is a task of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError(f"task '{name}' is not known{near(name, TASKS) or ';'} tasks are {', '.join(TASKS)}")


def get_task(name: str, **options: Any) -> Task:
    """The task of a name.

    Args:
        name: one of `TASKS`.
        options: of the general tasks only; None counts as not given.
            train_file, validation_file, test_file: names or patterns of the splits' files, `|` between alternatives,
                relative to the data's folder or absolute. Else `train.*`, `validation.*` or `dev.*`, `test.*`.
            text_column ("text"), text_pair_column (none), label_column ("label"), id_column (none): columns of tables.
            labels: of a classification; else those of the training file under `data_dir`.
            can_be_unanswerable (False): questions may have no answer, as in SQuAD v2.0.

    Raises:
        ConfigError: no such task, or an option it does not have.
    """
    check_name(name)
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        # The folder is needed by one task only; to give it to all of them is no mistake.
        if option not in OPTIONS.get(name, ()) and option != "data_dir":
            known = ", ".join(OPTIONS.get(name, ())) or "none: its files are read as published"
            raise ConfigError(f"task '{name}' has no option '{option}'; it has {known}")
    if name in _BENCHMARKS:
        return _BENCHMARKS[name]()
    forms = {"qa": squad.FORMS, "seq2seq": seq2seq.FORMS}.get(name, TABLES)
    patterns = {
        split: _patterns(given.get(option), SPLIT_NAMES[split], forms)
        for split, option in zip(SPLIT_NAMES, _FILES, strict=True)
    }
    several = any(option in given for option in _FILES)
    match name:
        case "qa":
            can_be_unanswerable = bool(given.get("can_be_unanswerable", False))
            return squad.qa_task("qa", patterns, can_be_unanswerable=can_be_unanswerable, several=several)
        case "seq2seq":
            return seq2seq.seq2seq_task(patterns, several=several, id_column=given.get("id_column"))
    columns = tabular.Columns(
        text=given.get("text_column", "text"),
        text_pair=given.get("text_pair_column"),
        label=given.get("label_column", "label"),
        id=given.get("id_column"),
    )
    if name == "regression":
        return tabular.regression_task(patterns, columns, several)
    return tabular.classification_task(patterns, columns, given.get("labels"), given.get("data_dir"), several)


def _patterns(given: str | None, stems: Sequence[str], forms: Sequence[str]) -> list[str]:
    return [given] if given else name_patterns(stems, forms)
