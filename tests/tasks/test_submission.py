"""What is handed in: official names, headers and forms."""

import json
from pathlib import Path

import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer, QaExample, SourceTarget, TextExample
from pmlm_core.tasks.glue import SPECS, glue_task
from pmlm_core.tasks.registry import get_task


def content(file):
    return Path(file).read_text(encoding="utf-8")


TEXTS = [TextExample(str(i), i + 2, "a", "b") for i in range(3)]

OFFICIAL = {
    "cola": ["CoLA.tsv"], "sst2": ["SST-2.tsv"], "mrpc": ["MRPC.tsv"], "qqp": ["QQP.tsv"], "stsb": ["STS-B.tsv"],
    "mnli": ["MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"], "qnli": ["QNLI.tsv"], "rte": ["RTE.tsv"], "wnli": ["WNLI.tsv"],
    "ax": ["AX.tsv"],
}  # fmt: skip


@pytest.mark.parametrize("name", list(SPECS))
def test_glue(tmp_path, name):
    """Each test set's file has the official name; no other split's file has such a name."""
    task = glue_task(name)
    written = {}
    for split in task.splits:
        labels = ["2.5", "3", "1e0"] if name == "stsb" else [task.labels[0], task.labels[1], task.labels[0]]
        predictions = dict(zip("012", map(float, labels) if name == "stsb" else labels, strict=True))
        (file,) = task.write_predictions(str(tmp_path), split, TEXTS, predictions)
        written[split] = file.removeprefix(f"{tmp_path}/")
    assert [file for split, file in written.items() if split.startswith("test")] == OFFICIAL[name]
    assert len(set(written.values())) == len(task.splits)
    others = {file for split, file in written.items() if not split.startswith("test")}
    assert not others & {file for files in OFFICIAL.values() for file in files}
    lines = (tmp_path / OFFICIAL[name][0]).read_text().split("\n")
    expected = ["2.500", "3.000", "1.000"] if name == "stsb" else labels
    assert lines == ["index\tprediction", *(f"{i}\t{label}" for i, label in enumerate(expected)), ""]


@pytest.mark.parametrize(
    ("name", "split", "named"),
    [
        ("rte", "part-of-test", "RTE.part-of-test.tsv"),
        ("mnli", "part-of-test_mismatched", "MNLI-mm.part-of-test.tsv"),
        ("mnli", "part-of-test_ax", "AX.part-of-test.tsv"),
    ],
)
def test_part_of_a_test_set_has_no_official_name(tmp_path, name, split, named):
    files = glue_task(name).write_predictions(str(tmp_path), split, TEXTS, dict.fromkeys("012", "entailment"))
    assert files == [str(tmp_path / named)]


def test_similarities_are_clipped(tmp_path):
    (file,) = glue_task("stsb").write_predictions(str(tmp_path), "test", TEXTS, {"0": -0.2, "1": 5.4, "2": 3.14159})
    assert [line.split("\t")[1] for line in content(file).splitlines()[1:]] == ["0.000", "5.000", "3.142"]


def test_a_prediction_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"no prediction for example '2' \(row 4\)"):
        glue_task("rte").write_predictions(str(tmp_path), "test", TEXTS, {"0": "entailment", "1": "entailment"})
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_squad(tmp_path):
    examples = [QaExample("a", 1, "q", "Ödön came"), QaExample("b", 2, "q", "c")]
    predictions = {
        "a": Answer("Ödön", 0, score=7.0, null_score=2.5, n_best=({"text": "Ödön", "score": 7.0, "probability": 0.9},)),
        "b": Answer("", -1, score=1.0, null_score=4.0),
    }
    first = get_task("squad1.1").write_predictions(str(tmp_path / "1"), "dev", examples, predictions)
    names = ["predictions.dev.json", "nbest_predictions.dev.json"]
    assert first == [str(tmp_path / "1" / name) for name in names]
    second = get_task("squad2.0").write_predictions(str(tmp_path / "2"), "dev", examples, predictions)
    assert second == [str(tmp_path / "2" / name) for name in [*names, "null_odds.dev.json"]]
    contents = [json.loads(content(file)) for file in second]
    assert contents == [
        {"a": "Ödön", "b": ""},
        {"a": [{"text": "Ödön", "score": 7.0, "probability": 0.9}], "b": []},
        {"a": -4.5, "b": 3.0},
    ]


def test_generated_texts(tmp_path):
    examples = [SourceTarget("x", 1, "s"), SourceTarget("y", 2, "s"), SourceTarget("z", 3, "s")]
    texts = {"z": "", "x": "One .\r\nTwo\u2028three", "y": "größer"}
    plain, records = get_task("xsum").write_predictions(str(tmp_path), "test", examples, texts)
    assert content(plain).split("\n") == ["One . Two three", "größer", "", ""]
    lines = [json.loads(line) for line in content(records).rstrip("\n").split("\n")]
    assert lines == [{"id": key, "prediction": texts[key]} for key in "xyz"]


def test_tables(tmp_path):
    examples = [TextExample("a\tb", 2, "t"), TextExample("c", 3, "t")]
    (file,) = get_task("regression").write_predictions(str(tmp_path), "test", examples, {"a\tb": 1 / 3, "c": -7.0})
    assert content(file) == f"id\tprediction\na b\t{1 / 3}\nc\t-7.0\n"
