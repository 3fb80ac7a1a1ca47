"""Sources and targets: JSON lines, Parquet, stories, and question generation in both splits."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.question_generation import question_generation_task
from pmlm_core.tasks.registry import get_task
from pmlm_core.tasks.stories import parse
from pmlm_core.tasks.summarization import summarization_task
from tests.tasks.task_makers import read, write


def jsonl(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_texts_or_tokens_and_references(tmp_path):
    write(
        tmp_path / "train.jsonl",
        jsonl(
            {"src": "A dog.", "tgt": "Dog"},
            {"src": ["A", "cat", "##s", "."], "tgt": ["Cat"]},
            {"src": "Both.", "tgt": "B", "references": ["B", ["b", "!"]]},
        ),
    )
    examples, bad = read(get_task("seq2seq"), tmp_path, "train")
    assert bad == []
    assert [(e.id, e.row, e.source, e.target, e.references) for e in examples] == [
        ("0", 1, "A dog.", "Dog", ("Dog",)),
        ("1", 2, "A cats .", "Cat", ("Cat",)),
        ("2", 3, "Both.", "B", ("B", "b !")),
    ]


def test_bad_pairs(tmp_path):
    file = write(
        tmp_path / "dev.jsonl",
        jsonl({"src": "a", "tgt": "b"}, {"src": "a"}, {"src": 3, "tgt": "b"}, {"src": " ", "tgt": "b"}).encode()
        + jsonl({"src": "a", "tgt": ""}, {"src": "a", "tgt": "b", "references": "b"}, {"tgt": "b"}).encode()
        + b'{"src": "caf\xe9", "tgt": "b"}\n["src"]\n{"src": \n'
        + jsonl({"src": "a", "tgt": "b", "id": "0"}, {"src": "a\ud800", "tgt": "b"}).encode("utf-8", "surrogatepass"),
    )
    examples, bad = read(get_task("seq2seq"), tmp_path, "dev")
    assert [e.id for e in examples] == ["0"]
    assert [(b.row, b.reason) for b in bad] == [
        (2, "missing field"),
        (3, "not text"),
        (4, "empty source"),
        (5, "empty target"),
        (6, "not a list"),
        (7, "missing field"),
        (8, "invalid UTF-8"),
        (9, "invalid JSON"),
        (10, "invalid JSON"),
        (11, "duplicate id"),
        (12, "invalid UTF-8"),
    ]
    assert bad[0].detail == f"{file}, row 2: field 'tgt' is missing"


def test_test_files_may_lack_targets(tmp_path):
    write(tmp_path / "test.jsonl", jsonl({"src": "a"}))
    (example,), _ = read(get_task("seq2seq"), tmp_path, "test")
    assert (example.target, example.references) == (None, ())


def test_a_file_with_other_fields_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", jsonl(*[{"text": "a", "title": "b"}] * 30))
    with pytest.raises(DataError, match=r"no fields 'src' and 'tgt'.*fields found: text, title"):
        read(get_task("seq2seq"), tmp_path, "train")


def test_a_json_array_is_refused(tmp_path):
    write(tmp_path / "train.json", json.dumps([{"src": "a", "tgt": "b"}]))
    with pytest.raises(DataError, match="one JSON array"):
        read(get_task("seq2seq"), tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "file", "fields"),
    [
        ("cnn_dailymail", "cnn_dailymail.validation.sample.jsonl", ("src", "tgt")),
        ("cnn_dailymail", "val.jsonl", ("article", "highlights")),
        ("xsum", "xsum.dev.jsonl", ("document", "summary")),
        ("xsum", "validation.json", ("src", "tgt")),
    ],
)
def test_summaries_in_json_lines(tmp_path, name, file, fields):
    source, target = fields
    write(tmp_path / file, jsonl({source: "Long.\nText.", target: "One .\nTwo .", "id": "42"}))
    (example,), bad = read(summarization_task(name), tmp_path, "dev")
    assert bad == []
    assert (example.id, example.source, example.target) == ("42", "Long.\nText.", "One .\nTwo .")


def test_summaries_in_the_hub_s_parquet(tmp_path):
    (tmp_path / "3.0.0").mkdir()
    for part in range(2):
        table = pa.table({"article": [f"A{part}"], "highlights": [f"H{part}"], "id": [f"id{part}"]})
        pq.write_table(table, tmp_path / "3.0.0" / f"train-0000{part}-of-00002.parquet")
    examples, _ = read(summarization_task("cnn_dailymail"), tmp_path, "train")
    assert [(e.id, e.source, e.target) for e in examples] == [("id0", "A0", "H0"), ("id1", "A1", "H1")]


def test_stories(tmp_path):
    urls = ["http://a/1", "http://a/2", "http://a/3"]
    write(tmp_path / "url_lists/all_val.txt", "\n".join(urls) + "\n")
    names = [hashlib.sha1(url.encode()).hexdigest() for url in urls]
    story = "(CNN) -- He came.\n\nShe saw\n\n@highlight\n\nHe came\n\n@highlight\n\nShe saw!\n"
    write(tmp_path / f"cnn/stories/{names[0]}.story", story)
    write(tmp_path / f"dailymail/stories/{names[2]}.story", "Nobody.\n")
    (example,), bad = read(summarization_task("cnn_dailymail"), tmp_path, "dev")
    assert example.id == names[0]
    assert example.source == "(CNN) -- He came. She saw ."
    assert example.target == "He came .\nShe saw!"
    assert example.references == (example.target,)
    assert [(b.row, b.reason) for b in bad] == [(2, "missing story"), (3, "empty target")]
    assert urls[1] in bad[0].detail


def test_every_line_below_the_first_mark_is_a_highlight():
    """A highlight of two lines would otherwise give half of itself away in the source."""
    article, highlights = parse("He came.\n\n@highlight\n\nHe came\nand saw\n\n@highlight\n\nHe won\n\nAt last.")
    assert article == ["He came."]
    assert highlights == ["He came .", "and saw .", "He won .", "At last."]


def squad_articles(*questions):
    qas = [
        {"id": key, "question": f"Is it {key}? ", "answers": [{"text": text, "answer_start": start}]}
        for key, text, start in questions
    ]
    return json.dumps([{"title": "T", "paragraphs": [{"context": "Ann met Bob.", "qas": qas}]}])


def test_question_generation_and_its_reversed_split(tmp_path):
    write(tmp_path / "dev.json", squad_articles(("a", "Ann", 0), ("b", "Bob", 8)))
    write(tmp_path / "test.json", squad_articles(("c", "Bob", 8), ("d", "Eve", 1), ("e", "Ann", 0)))
    write(tmp_path / "processed/tgt-test.txt", "is it c ?\nis it d ?\nis it e ?\n")
    examples, _ = read(question_generation_task("squad_qg"), tmp_path, "dev")
    assert [(e.id, e.source, e.target, e.references) for e in examples] == [
        ("a", "Ann [SEP] Ann met Bob.", "Is it a?", ("Is it a?",)),
        ("b", "Bob [SEP] Ann met Bob.", "Is it b?", ("Is it b?",)),
    ]
    # The published lines are found by place, past a bad row; the reversed split's dev is Du's test.
    expected = [("c", "Is it c?", ("is it c ?",)), ("e", "Is it e?", ("is it e ?",))]
    for name, split in (("squad_qg", "test"), ("squad_qg_reversed", "dev")):
        examples, bad = read(question_generation_task(name), tmp_path, split)
        assert [(e.id, e.target, e.references) for e in examples] == expected
        assert [b.reason for b in bad] == ["answer not in passage"]


def test_published_lines_must_fit_the_questions(tmp_path):
    write(tmp_path / "test.json", squad_articles(("c", "Bob", 8)))
    write(tmp_path / "tgt-test.txt", "one\ntwo\n")
    with pytest.raises(DataError, match=r"2 lines, but .* 1 questions"):
        read(question_generation_task("squad_qg"), tmp_path, "test")


def test_a_question_that_is_there_twice(tmp_path):
    """Predictions are known by id: two of one id would be scored as one."""
    write(tmp_path / "dev.json", squad_articles(("a", "Ann", 0), ("a", "Bob", 8)))
    examples, (bad,) = read(question_generation_task("squad_qg"), tmp_path, "dev")
    assert [e.id for e in examples] == ["a"]
    assert (bad.row, bad.reason) == (2, "duplicate id")
