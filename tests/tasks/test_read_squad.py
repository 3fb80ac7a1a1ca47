"""SQuAD's JSON and the hub's Parquet: offsets hold, whatever the file says; bad questions are named."""

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.errors import DataError
from pmlm_core.tasks.base import Answer
from pmlm_core.tasks.registry import get_task
from pmlm_core.tasks.squad import nearest, squad_task
from tests.tasks.task_makers import read, write

CONTEXT = "Ödön 🎺 met Ann in Rome. Ann left Rome in May."


def squad_json(*questions, context=CONTEXT, **more):
    paragraph = {"context": context, "qas": list(questions)}
    return json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": [paragraph]}], **more})


def question(key, *answers, **more):
    return {"id": key, "question": f"{key}?", "answers": [{"text": t, "answer_start": s} for t, s in answers], **more}


def test_version_1(tmp_path):
    at = CONTEXT.index("Ann")
    content = squad_json(question("a", ("Ann", at), ("Ann in Rome", at)), question("b", ("🎺", 5)))
    write(tmp_path / "dev-v1.1.json", b"\xef\xbb\xbf" + content.encode())
    examples, bad = read(squad_task("1.1"), tmp_path, "dev")
    assert bad == []
    assert [(e.id, e.row, e.answers, e.is_impossible) for e in examples] == [
        ("a", 1, (("Ann", at), ("Ann in Rome", at)), False),
        ("b", 2, (("🎺", 5),), False),
    ]
    assert examples[0].context == CONTEXT
    assert examples[0].question == "a?"


def test_version_2(tmp_path):
    unanswerable = question("b", is_impossible=True) | {"plausible_answers": [{"text": "Rome", "answer_start": 0}]}
    write(tmp_path / "train-v2.0.json", squad_json(question("a", ("May", 41), is_impossible=False), unanswerable))
    task = squad_task("2.0")
    examples, bad = read(task, tmp_path, "train")
    assert bad == []
    assert [(e.id, e.answers, e.is_impossible) for e in examples] == [("a", (("May", 41),), False), ("b", (), True)]
    assert task.can_be_unanswerable
    assert not squad_task("1.1").can_be_unanswerable


def test_questions_without_answers_are_for_test_only(tmp_path):
    content = squad_json({"id": "a", "question": "a?"})
    write(tmp_path / "test.json", content)
    write(tmp_path / "dev.json", content)
    (example,), _ = read(squad_task("2.0"), tmp_path, "test")
    assert (example.answers, example.is_impossible) == ((), None)
    assert [b.reason for b in read(squad_task("1.1"), tmp_path, "dev")[1]] == ["no answer"]


def test_wrong_offsets_are_mended_and_said(tmp_path, caplog):
    first, second = CONTEXT.index("Rome"), CONTEXT.rindex("Rome")
    write(
        tmp_path / "train.json",
        squad_json(
            question("near the first", ("Rome", first + 1)),
            question("near the second", ("Rome", second - 2)),
            question("past the end", ("Rome", 9999)),
            question("none", ("Rome", None)),
            question("one of two", ("Paris", 3), ("Rome", first)),
            question("right", ("Rome", second)),
        ),
    )
    with caplog.at_level(logging.WARNING):
        examples, bad = read(squad_task("1.1"), tmp_path, "train")
    assert bad == []
    places = {e.id: [start for _, start in e.answers] for e in examples}
    assert places == {
        "near the first": [first],
        "near the second": [second],
        "past the end": [second],
        "none": [first],
        "one of two": [first],
        "right": [second],
    }
    assert "5 questions had an answer that was not at its answer_start" in caplog.text


def test_bad_questions(tmp_path):
    path = tmp_path / "train.json"
    write(
        path,
        squad_json(
            question("ok", ("Ann", 11)),
            question("absent", ("Paris", 3)),
            question("empty", ("", 3)),
            question("ok", ("Ann", 11)),
            question("impossible", is_impossible=True),
            {"id": "x", "answers": []},
            question("odd", ("Ann", 11)) | {"question": "\ud800"},
            {"question": "no id", "answers": []},
        ),
    )
    examples, bad = read(squad_task("1.1"), tmp_path, "train")
    assert [e.id for e in examples] == ["ok"]
    assert [(b.row, b.reason) for b in bad] == [
        (2, "answer not in passage"),
        (3, "empty answer"),
        (4, "duplicate id"),
        (5, "unanswerable question"),
        (6, "missing field"),
        (7, "invalid UTF-8"),
        (8, "missing field"),
    ]
    assert bad[0].detail == f"{path}, row 2: field 'answers': 'Paris' is not in the passage"


def test_ids_may_be_numbers(tmp_path):
    write(tmp_path / "dev.json", squad_json(question(7, ("Ann", 11)), question("7", ("Ann", 11)), question(True)))
    (example,), bad = read(squad_task("1.1"), tmp_path, "dev")
    assert example.id == "7"
    assert [b.reason for b in bad] == ["duplicate id", "not text"]


def test_latin1_bytes_spoil_only_their_question(tmp_path):
    content = squad_json({"id": "a", "question": "café", "answers": [{"text": "Ann", "answer_start": 11}]})
    data = content.replace("caf\\u00e9", "caf\udce9").encode("utf-8", "surrogateescape")
    write(tmp_path / "dev.json", data)
    _, (bad,) = read(squad_task("1.1"), tmp_path, "dev")
    assert "field 'question' is not UTF-8: byte 0xe9 at character 3" in bad.detail


@pytest.mark.parametrize("content", ["{", '{"version": 1}', '{"data": [{"title": "x"}]}', '{"data": ["x"]}', "3"])
def test_files_of_another_form(tmp_path, content):
    file = write(tmp_path / "dev.json", content)
    with pytest.raises(DataError, match=r"JSON|SQuAD") as caught:
        read(squad_task("1.1"), tmp_path, "dev")
    assert str(file) in str(caught.value)


def test_the_hub_s_parquet(tmp_path):
    table = pa.table(
        {
            "id": ["a", "b"],
            "title": ["T", "T"],
            "context": [CONTEXT, CONTEXT],
            "question": ["Who?", "Why?"],
            "answers": [{"text": ["Ann"], "answer_start": [11]}, {"text": [], "answer_start": []}],
        }
    )
    (tmp_path / "squad_v2").mkdir()
    pq.write_table(table, tmp_path / "squad_v2" / "validation-00000-of-00001.parquet")
    examples, bad = read(squad_task("2.0"), tmp_path, "dev")
    assert bad == []
    assert [(e.id, e.answers, e.is_impossible) for e in examples] == [("a", (("Ann", 11),), False), ("b", (), True)]


def hub_table(folder, *answers):
    rows = len(answers)
    table = {"id": [str(n) for n in range(rows)], "context": [CONTEXT] * rows, "question": ["Who?"] * rows}
    column = pa.array(answers, pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))]))
    pq.write_table(pa.table({**table, "answers": column}), folder / "test.parquet")


ANN, NONE = {"text": ["Ann"], "answer_start": [11]}, {"text": [], "answer_start": []}


@pytest.mark.parametrize(
    ("answers", "impossible"),
    [
        ([NONE, ANN, None], [True, False, None]),  # the last says nothing
        ([NONE, NONE], [None, None]),  # a test set without its answers
    ],
)
def test_unanswerable_questions_of_a_test_file_in_the_hub_s_form(tmp_path, answers, impossible):
    """They are scored where the file has answers: leaving them out would be another, easier figure."""
    hub_table(tmp_path, *answers)
    task = squad_task("2.0")
    examples, bad = read(task, tmp_path, "test")
    assert bad == []
    assert [e.is_impossible for e in examples] == impossible
    if True in impossible:
        figures = task.score(examples, {example.id: Answer("Ann", 11, 1.0) for example in examples})
        assert (figures["total"], figures["NoAns_f1"], figures["HasAns_f1"]) == (2, 0, 100)
    assert not any(example.is_impossible for example in read(squad_task("1.1"), tmp_path, "test")[0])


@pytest.mark.parametrize("task", [get_task("qa"), squad_task("1.1")], ids=["qa", "squad1.1"])
def test_rows_without_an_answer_name_the_option_that_takes_them(tmp_path, task):
    hub_table(tmp_path, ANN, NONE)
    (tmp_path / "test.parquet").rename(tmp_path / "train.parquet")
    examples, (bad,) = read(task, tmp_path, "train")
    assert [e.id for e in examples] == ["0"]
    assert bad.detail.endswith(
        "row 2: field 'answers' is empty; where questions may have no answer, give --can_be_unanswerable true with "
        "--task qa, or take squad2.0"
    )
    taken, bad = read(get_task("qa", can_be_unanswerable=True), tmp_path, "train")
    assert ([e.is_impossible for e in taken], bad) == ([False, True], [])


JSON_LINES = "".join(
    json.dumps({"id": key, "context": CONTEXT, "question": f"{key}?", **more}) + "\n"
    for key, more in {
        "a": {"answers": ANN},
        "b": {"answers": [{"text": "May", "answer_start": 41}]},
        "c": {"answers": NONE, "is_impossible": True},
        "d": {"answers": {"text": ["Paris"], "answer_start": [0]}},
    }.items()
)


@pytest.mark.parametrize("options", [{}, {"train_file": "train.jsonl"}])
def test_json_lines_with_the_fields_of_the_hub_s_parquet(tmp_path, options):
    write(tmp_path / "train.jsonl", JSON_LINES)
    examples, bad = read(get_task("qa", can_be_unanswerable=True, **options), tmp_path, "train")
    assert [(e.id, e.row, e.question, e.answers, e.is_impossible) for e in examples] == [
        ("a", 1, "a?", (("Ann", 11),), False),
        ("b", 2, "b?", (("May", 41),), False),
        ("c", 3, "c?", (), True),
    ]
    assert [(b.row, b.reason) for b in bad] == [(4, "answer not in passage")]


def test_json_lines_by_the_name_of_squad_s_form(tmp_path):
    write(tmp_path / "train.json", JSON_LINES)
    with pytest.raises(DataError, match=r"train.json is not JSON: Extra data.*if it holds JSON lines, name it .jsonl"):
        read(get_task("qa"), tmp_path, "train")


def test_parquet_may_say_itself_that_there_is_no_answer(tmp_path):
    table = {"id": ["a", "b"], "context": [CONTEXT] * 2, "question": ["Who?"] * 2, "answers": [ANN, ANN]}
    pq.write_table(pa.table({**table, "is_impossible": [False, True]}), tmp_path / "dev.parquet")
    examples, _ = read(squad_task("2.0"), tmp_path, "dev")
    assert [(e.id, e.answers, e.is_impossible) for e in examples] == [("a", (("Ann", 11),), False), ("b", (), True)]


@given(st.text("ab", max_size=12), st.text("ab", min_size=1, max_size=3), st.integers(0, 14))
def test_nearest_against_all_places(context, text, start):
    places = [i for i in range(len(context)) if context.startswith(text, i)]
    found = nearest(context, text, start)
    if places:
        assert found in places
        assert abs(found - start) == min(abs(place - start) for place in places)
    else:
        assert found == -1


def test_parquet_with_a_list_of_answers_or_unequal_lists(tmp_path):
    rows = {"id": ["a", "b"], "context": [CONTEXT] * 2, "question": ["Who?", "Why?"]}
    for answers in (
        [[{"text": "Ann", "answer_start": 11}], []],
        [{"text": ["Ann"], "answer_start": []}, {"text": [], "answer_start": [3]}],
    ):
        pq.write_table(pa.table({**rows, "answers": answers}), tmp_path / "dev.parquet")
        examples, bad = read(squad_task("2.0"), tmp_path, "dev")
        assert bad == []
        assert [(e.id, e.answers) for e in examples] == [("a", (("Ann", CONTEXT.index("Ann")),)), ("b", ())]
