"""Extractive question answering: SQuAD v1.1 and v2.0 (Rajpurkar et al., 2016, 2018), and one's own data in their JSON.

Offsets count characters (code points) of the passage, as Python does. An answer that is not where its `answer_start`
says is looked for in the passage and set to the nearest place; how many were is logged. A question none of whose
answers is in the passage is a bad row.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any

from pmlm_core.errors import DataError
from pmlm_core.tasks import scoring, submission
from pmlm_core.tasks.base import BadRow, QaExample, Recipe, Task
from pmlm_core.tasks.fields import text_of
from pmlm_core.tasks.files import SPLIT_NAMES, find_files, form, name_patterns
from pmlm_core.tasks.lines import contents, without_mark
from pmlm_core.tasks.rows import Row, RowError, bad_row, read_rows

logger = logging.getLogger(__name__)

RECIPE = Recipe(
    batch_size=32,
    learning_rate=2e-5,
    warmup_ratio=0.1,
    weight_decay=0.01,
    num_train_epochs=4,
    max_length=384,
    doc_stride=128,
)
FORMS = (".json", ".jsonl", ".parquet")
_OR_ELSE = "; where questions may have no answer, give --can_be_unanswerable true with --task qa, or take squad2.0"
_HUB_FOLDERS = {"1.1": ("plain_text",), "2.0": ("squad_v2",)}


def squad_task(version: str) -> Task:
    """SQuAD of `version` "1.1" or "2.0". The official test sets are not public; "test" reads a file of that name."""
    patterns = {
        split: [
            *(f"{stem}-v{version}{middle}.json" for stem in stems for middle in ("", ".sample")),
            *name_patterns(stems, FORMS),
        ]
        for split, stems in SPLIT_NAMES.items()
    }
    folders = ("", *_HUB_FOLDERS[version])
    return qa_task(f"squad{version}", patterns, can_be_unanswerable=version == "2.0", folders=folders)


def qa_task(
    name: str,
    patterns: Mapping[str, Sequence[str]],
    *,
    can_be_unanswerable: bool,
    folders: Sequence[str] = ("",),
    several: bool = False,
) -> Task:
    """A task over files in SQuAD's JSON form, or with a question a row: the hub's Parquet, or JSON lines.

    Args:
        patterns: of the files of "train", "dev", "test"; see `find_files`.
        can_be_unanswerable: read and score as v2.0; otherwise a question marked `is_impossible` is a bad row. Where
            the field is not there, an empty list of answers says so, in "test" only if some question has answers.
    """

    return Task(
        name=name,
        kind="question_answering",
        metric="f1",
        splits=("train", "dev", "test"),
        labelled=("train", "dev"),
        recipe=RECIPE,
        read=partial(_read, name, patterns, can_be_unanswerable, folders, several),
        score=partial(scoring.score_answers, can_be_unanswerable=can_be_unanswerable),
        write_predictions=partial(submission.write_squad, null_odds=can_be_unanswerable),
        scorers=partial(scoring.describe, "squad"),
        can_be_unanswerable=can_be_unanswerable,
    )


def _read(
    name: str,
    patterns: Mapping[str, Sequence[str]],
    can_be_unanswerable: bool,
    folders: Sequence[str],
    several: bool,
    data_dir: str,
    split: str,
) -> Iterator[QaExample | BadRow]:
    what = f"split '{split}' of task '{name}'"
    files = find_files(data_dir, patterns[split], what=what, folders=folders, several=several)
    return _examples(files, can_be_unanswerable, needs_answer=split != "test")


def _examples(files: Sequence[str], can_be_unanswerable: bool, needs_answer: bool) -> Iterator[QaExample | BadRow]:
    seen: set[str] = set()
    # A test file may lack all answers; one that has some says by an empty list that there is none.
    says = needs_answer or (can_be_unanswerable and any(map(_has_answers, chain(*map(question_rows, files)))))
    for file in files:
        moved = 0
        for row in question_rows(file):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                example, was_moved = _example(row, can_be_unanswerable, needs_answer, says)
                if example.id in seen:
                    raise RowError("duplicate id", f"id '{example.id}' stands twice")
            except RowError as error:
                yield bad_row(file, row.number, error)
                continue
            seen.add(example.id)
            moved += was_moved
            yield example
        if moved:
            logger.warning(
                "%s: %d questions had an answer that was not at its answer_start; it was set to the nearest place "
                "in the passage with that text, or left out where there is none",
                file,
                moved,
            )


def _has_answers(row: Row | BadRow) -> bool:
    return isinstance(row, Row) and bool(row.fields.get("answers"))


def question_rows(file: str) -> Iterator[Row | BadRow]:
    """Yield each question with the fields id, question, context, answers, is_impossible.

    The file is SQuAD's JSON, the bare list of articles of it (Du et al.'s raw files), or Parquet as the hub has it, or
    JSON lines with the same fields. A row's number is the place of the question in the file, from 1; its line in JSON
    lines.

    Raises:
        DataError: not JSON, or of another structure.
    """
    if form(file) in (".parquet", ".jsonl"):
        for row in read_rows([file], ("id", "context", "question"), ("answers", "is_impossible")):
            if isinstance(row, Row):
                row = row._replace(fields={**row.fields, "answers": _one_by_one(row.fields.get("answers"))})
            yield row
        return
    text = without_mark(contents(file), file).decode("utf-8", "surrogateescape")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = "; if it holds JSON lines, name it .jsonl" * str(error).startswith("Extra data")
        raise DataError(f"{file} is not JSON: {error}{lines}") from None
    articles = data.get("data") if isinstance(data, dict) else data
    number = 0
    try:
        if not isinstance(articles, list):
            raise KeyError("data")
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    yield Row(file, number, {**question, "context": paragraph.get("context")})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}, after question {number}: not SQuAD's form (data: [paragraphs: [context, qas: [...]]]); {error!r}"
        ) from None


def _one_by_one(answers: Any) -> Any:
    """Answers as SQuAD's JSON has them, of those that the hub's Parquet has: a list of texts and one of offsets."""
    if not isinstance(answers, dict) or not isinstance(answers.get("text"), list):
        return answers
    starts = answers.get("answer_start") or []
    return [
        {"text": text, "answer_start": start}
        for text, start in zip_longest(answers["text"], starts[: len(answers["text"])])
    ]


def _example(row: Row, can_be_unanswerable: bool, needs_answer: bool, says: bool) -> tuple[QaExample, bool]:
    """The example and whether an answer was moved. Args: says: the split has answers, so that none means none."""
    fields = row.fields
    context, question = text_of(fields, "context"), text_of(fields, "question")
    number = fields.get("id")
    identifier = str(number) if type(number) is int else text_of(fields, "id")
    answers, moved = answers_in(fields.get("answers") or [], context)
    impossible = fields.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        raise RowError("not a truth value", f"field 'is_impossible' holds {impossible!r:.40}")
    if impossible and not can_be_unanswerable:
        raise RowError("unanswerable question", f"field 'is_impossible' is true{_OR_ELSE}")
    if impossible:
        answers = ()  # v2.0 keeps plausible answers elsewhere; were any here, they would not be right ones
    elif not answers and needs_answer:
        if not can_be_unanswerable or impossible is not None:
            detail = "field 'answers' is empty" + " and 'is_impossible' is not true" * (impossible is not None)
            raise RowError("no answer", detail + _OR_ELSE * (not can_be_unanswerable))
        impossible = True  # the hub's Parquet has no is_impossible
    elif answers:
        impossible = False
    elif says and impossible is None and fields.get("answers") is not None:
        impossible = True
    return QaExample(identifier, row.number, question, context, answers, impossible), moved


def answers_in(answers: Any, context: str) -> tuple[tuple[tuple[str, int], ...], bool]:
    """Place answers in their passage.

    Returns:
        (text, start) of each that is in the passage, and whether any was not where it was said to be.

    Raises:
        RowError: answers are given, but none is in the passage; or they are of another form.
    """
    placed, moved = [], False
    for answer in answers if isinstance(answers, list) else [answers]:
        if not isinstance(answer, dict):
            raise RowError("not an answer", f"field 'answers' holds {answer!r:.60}, not {{text, answer_start}}")
        text, start = text_of(answer, "text"), answer.get("answer_start")
        if not text.strip():
            raise RowError("empty answer", "field 'answers' holds an empty text")
        said = start if isinstance(start, int) and not isinstance(start, bool) and start >= 0 else None
        if said is not None and context.startswith(text, said):
            placed.append((text, said))
            continue
        moved = True
        found = nearest(context, text, said or 0)
        if found >= 0:
            placed.append((text, found))
    if answers and not placed:
        shown = str(answers[0]["text"])[:60] if isinstance(answers, list) else ""
        raise RowError("answer not in passage", f"field 'answers': '{shown}' is not in the passage")
    return tuple(placed), moved


def nearest(context: str, text: str, start: int) -> int:
    """The place of `text` in `context` nearest to `start`; -1 if there is none.

    >>> nearest("abcabc", "bc", 3), nearest("abc", "x", 0)
    (4, -1)
    """
    before, after = context.rfind(text, 0, start + len(text)), context.find(text, start)
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before < after - start else after
