"""The published data sets themselves, where `PMLM_DATA` names a folder with glue/, squad/, summarization/ and
question_generation/du2017/: every row is read, none is bad, and their number is the published one."""

import os

import pytest

from pmlm_core.tasks.registry import get_task
from pmlm_core.tasks.scoring import by_source
from tests.tasks.task_makers import read

FOLDER = os.environ.get("PMLM_DATA", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="PMLM_DATA does not name a folder with the published data sets")

# None: a sample, whose size is not published.
ROWS = [
    ("cola", "glue", {"train": 8551, "dev": 1043, "test": 1063}),
    ("sst2", "glue", {"train": 67349, "dev": 872, "test": 1821}),
    ("mrpc", "glue", {"train": 3668, "dev": 408, "test": 1725}),
    ("stsb", "glue", {"train": 5749, "dev": 1500, "test": 1379}),
    ("rte", "glue", {"train": 2490, "dev": 277}),
    ("wnli", "glue", {"train": 635, "dev": 71}),
    ("qnli", "glue", {"train": None, "dev": 5463, "test": 5463}),
    ("qqp", "glue", {"train": None, "dev": None}),
    ("mnli", "glue", {"train": None, "dev_matched": None}),
    ("squad1.1", "squad", {"train": 87599, "dev": 10570}),
    ("squad2.0", "squad", {"train": None, "dev": 11873}),
    ("squad_qg", "question_generation/du2017", {"train": 75722, "dev": 10570, "test": 11877}),
    ("squad_qg_reversed", "question_generation/du2017", {"dev": 11877, "test": 10570}),
    ("cnn_dailymail", "summarization", {"dev": None}),
    ("xsum", "summarization", {"train": None, "test": None}),
]


@pytest.mark.parametrize(("name", "folder", "rows"), ROWS, ids=[row[0] for row in ROWS])
def test_every_row_is_read(name, folder, rows):
    task = get_task(name)
    for split, expected in rows.items():
        examples, bad = read(task, os.path.join(FOLDER, folder), split)
        assert bad == []
        assert len(examples) == expected if expected else len(examples) > 900
        assert len({example.id for example in examples}) == len(examples)
        if task.kind == "question_answering":
            for example in examples:
                assert all(example.context[start : start + len(text)] == text for text, start in example.answers)
        elif task.labels and split in task.labelled:
            assert {example.label for example in examples} == set(task.labels)


def test_sources_of_question_generation():
    """What questions are scored by: a ninth of the test rows has the source of another one."""
    examples, _ = read(get_task("squad_qg"), os.path.join(FOLDER, "question_generation/du2017"), "test")
    found = by_source(examples)
    assert len(found) == 10510
    assert sum(len(example.references) for example in found) == 11877


@pytest.mark.parametrize(
    ("name", "train", "dev", "test"),
    [("scitldr", 1992, 619, 618), ("aeslc", 14436, 1960, 1906), ("dialogsum", 12460, 500, 500)],
)
def test_seq2seq_sets(name, train, dev, test):
    task = get_task(
        "seq2seq",
        train_file=f"{name}.train.jsonl",
        validation_file=f"{name}.dev.jsonl",
        test_file=f"{name}.test.jsonl",
    )
    found = [read(task, os.path.join(FOLDER, "summarization"), split) for split in task.splits]
    assert [(len(examples), bad) for examples, bad in found] == [(train, []), (dev, []), (test, [])]
