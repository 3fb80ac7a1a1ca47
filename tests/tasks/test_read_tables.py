"""One's own tables: four forms read alike, columns by option, labels found or given."""

import csv
import gzip
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.errors import ConfigError, DataError
from pmlm_core.tasks.base import BadRow
from pmlm_core.tasks.registry import get_task
from pmlm_core.tasks.rows import csv_rows
from tests.tasks.task_makers import read, write

RECORDS = [("q1", "What, now?", "good"), ("q2", "größer", "bad"), ("q3", '"', "good")]
NAMES = ("key", "body", "class")
OPTIONS = {"text_column": "body", "label_column": "class", "id_column": "key"}


def table_file(folder, form):
    if form == "parquet":
        columns = dict(zip(NAMES, map(list, zip(*RECORDS, strict=True)), strict=True))
        pq.write_table(pa.table({**columns, "other": [1, 2, 3]}), folder / "train.parquet")
    elif form == "jsonl":
        lines = [json.dumps(dict(zip(NAMES, record, strict=True)), ensure_ascii=False) for record in RECORDS]
        write(folder / "train.jsonl", "\n".join(lines))
    elif form == "csv":
        out = io.StringIO()
        csv.writer(out).writerows([NAMES, *RECORDS])  # writes CRLF
        write(folder / "train.csv", "\ufeff" + out.getvalue())
    else:
        text = "".join("\t".join(record) + "\n" for record in [NAMES, *RECORDS])
        write(folder / "train.tsv.gz", gzip.compress(text.encode()))


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_all_forms_read_alike(tmp_path, form):
    table_file(tmp_path, form)
    task = get_task("classification", data_dir=str(tmp_path), **OPTIONS)
    assert task.labels == ("bad", "good")
    examples, bad = read(task, tmp_path, "train")
    assert bad == []
    assert [(e.id, e.text_a, e.text_b, e.label) for e in examples] == [(i, t, None, label) for i, t, label in RECORDS]


def test_pairs_regression_and_numbers_as_text(tmp_path):
    write(tmp_path / "train.csv", 'text,other,label\n"a\nb",c,-1.5\nd,e,2\nf,g,high\n')
    examples, (bad,) = read(get_task("regression", text_pair_column="other"), tmp_path, "train")
    assert [(e.row, e.text_a, e.text_b, e.label) for e in examples] == [(2, "a\nb", "c", -1.5), (4, "d", "e", 2.0)]
    assert (bad.row, bad.reason) == (5, "invalid number")


def test_labels_given_decide_their_order_and_what_is_unknown(tmp_path):
    write(
        tmp_path / "train.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n{"text": "c", "label": 2.0}'
    )
    examples, (bad,) = read(get_task("classification", labels=["2", "1"]), tmp_path, "train")
    assert [e.label for e in examples] == ["1", "2"]
    assert (bad.row, bad.reason) == (2, "unknown label")


def test_labels_found_are_sorted_as_numbers(tmp_path):
    write(tmp_path / "train.tsv", "text\tlabel\n" + "".join(f"a\t{label}\n" for label in ("10", "9", "-1", "9")))
    assert get_task("classification", data_dir=str(tmp_path)).labels == ("-1", "9", "10")


@pytest.mark.parametrize(("labels", "message"), [([1], "two labels or more"), ([1, 1, 2], "each once")])
def test_labels_that_make_no_task(labels, message):
    with pytest.raises(ConfigError, match=message):
        get_task("classification", labels=labels)


def test_labels_must_come_from_somewhere(tmp_path):
    with pytest.raises(ConfigError, match="needs its labels"):
        get_task("classification")
    write(tmp_path / "train.tsv", "text\tlabel\n" + "".join(f"a\t{i}.5\n" for i in range(1200)))
    with pytest.raises(ConfigError, match="or is this a regression"):
        get_task("classification", data_dir=str(tmp_path))


def test_a_test_file_may_lack_labels_but_no_other_may(tmp_path):
    write(tmp_path / "test.tsv", "text\na\n")
    write(tmp_path / "validation.tsv", "text\na\n")
    task = get_task("classification", labels=["x", "y"])
    assert [e.label for e in read(task, tmp_path, "test")[0]] == [None]
    with pytest.raises(DataError, match=r"validation\.tsv: no column 'label'; columns found: 'text'"):
        read(task, tmp_path, "dev")


def test_a_row_without_any_text_teaches_nothing(tmp_path):
    rows = "text\tsentence2\tlabel\nwell\t\t1\n \t\t0\n\tis it\t0\n"
    write(tmp_path / "train.tsv", rows)
    write(tmp_path / "test.tsv", rows)
    task = get_task("classification", data_dir=str(tmp_path), text_pair_column="sentence2")
    examples, bad = read(task, tmp_path, "train")
    assert [example.label for example in examples] == ["1", "0"]
    assert [(row.reason, row.row) for row in bad] == [("empty text", 3)]
    assert len(read(task, tmp_path, "test")[0]) == 3  # every row of a submission must be predicted


def test_files_by_name_pattern_and_absolute_path(tmp_path):
    for i in range(3):
        write(tmp_path / f"parts/p{i}.tsv", f"text\tlabel\nt{i}\tx\n")
    options = {"labels": ["x", "y"]}
    for name in ("parts/p?.tsv", f"{tmp_path}/parts/*.tsv", "nothing*|parts/p*"):
        task = get_task("classification", train_file=name, **options)
        assert [e.text_a for e in read(task, tmp_path, "train")[0]] == ["t0", "t1", "t2"]


def test_two_forms_of_one_file_are_ambiguous(tmp_path):
    write(tmp_path / "train.tsv", "text\tlabel\na\tx\n")
    write(tmp_path / "train.csv", "text,label\na,x\n")
    with pytest.raises(DataError, match="several files fit"):
        read(get_task("classification", labels=["x", "y"]), tmp_path, "train")


def test_ids_must_differ(tmp_path):
    write(tmp_path / "train.csv", "text,label,id\na,1,k\nb,1,k\nc,1,\n")
    examples, bad = read(get_task("regression", id_column="id"), tmp_path, "train")
    assert [e.id for e in examples] == ["k"]
    assert [(b.row, b.reason) for b in bad] == [(3, "duplicate id"), (4, "missing field")]


def test_a_quotation_mark_that_is_never_closed_is_told(tmp_path):
    """All that follows is inside it; it must not become the text of an example."""
    write(tmp_path / "train.csv", 'label,text\n1,a\n2,"b\n3,c\n4,d\n')
    examples, (bad,) = read(get_task("regression"), tmp_path, "train")
    assert [e.text_a for e in examples] == ["a"]
    assert (bad.row, bad.reason) == (3, "invalid CSV")
    assert "not closed up to the end of the file; the 2 lines after it are lost" in bad.detail
    write(tmp_path / "train.csv", 'label,text\n1,"a\nb"\n2,"c"')
    examples, bad = read(get_task("regression"), tmp_path, "train")
    assert ([e.text_a for e in examples], bad) == (["a\nb", "c"], [])


def test_a_column_s_name_that_is_not_utf8_can_be_shown(tmp_path):
    write(tmp_path / "train.tsv", "Gr\xf6\xdfe\tlabel\ttext\nx\t1\ta\nx\t1\n".encode("latin-1"))
    _, (bad,) = read(get_task("regression"), tmp_path, "train")
    assert rb"Gr\udcf6\udcdfe" in bad.detail.encode()


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    write(tmp_path / "train.tsv", "label\ttext\ttext\n1\ta\tb\n")
    with pytest.raises(DataError, match=r"train\.tsv: column 'text' is there 2 times"):
        read(get_task("regression"), tmp_path, "train")


def test_decimals_are_numbers(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [Decimal("1.50")]}), tmp_path / "train.parquet")
    (example,), bad = read(get_task("regression"), tmp_path, "train")
    assert (example.label, bad) == (1.5, [])


def test_labels_that_are_one_number_keep_their_order(tmp_path):
    for order in (("1.0", "1", "01"), ("01", "1.0", "1")):
        write(tmp_path / "train.csv", "text,label\n" + "".join(f"a,{label}\n" for label in order))
        assert get_task("classification", data_dir=str(tmp_path)).labels == ("01", "1", "1.0")


def test_damaged_files_are_named(tmp_path):
    task = get_task("regression")
    file = write(tmp_path / "train.parquet", b"PAR1 no")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as Parquet"):
        read(task, tmp_path, "train")
    file.unlink()
    write(tmp_path / "train.tsv.gz", gzip.compress(b"text\tlabel\n" + b"a\t1\n" * 9999)[:60])
    with pytest.raises(DataError, match=r"train\.tsv\.gz"):
        read(task, tmp_path, "train")


def test_parquet_text_that_is_not_utf8(tmp_path):
    text = pa.array([b"ok", b"caf\xe9", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": text, "label": [1.0, 2.0, 3.0]}), tmp_path / "train.parquet")
    examples, (bad,) = read(get_task("regression"), tmp_path, "train")
    assert [e.text_a for e in examples] == ["ok", "fine"]
    assert (bad.row, bad.reason) == (2, "invalid UTF-8")
    assert "'text'" in bad.detail


_field = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=8)


@given(st.lists(st.tuples(_field, _field), max_size=5))
def test_csv_is_read_back_as_written(tmp_path_factory, records):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(file, "w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([("a", "b"), *records])
    rows = list(csv_rows(str(file), ["a"]))
    assert not any(isinstance(row, BadRow) for row in rows)
    assert [(row.fields["a"], row.fields["b"]) for row in rows] == records
    lines = 2
    for row in rows:
        assert row.number == lines
        lines += 1 + "".join(row.fields.values()).count("\n")


def test_columns_that_are_missing_are_named_all_at_once_with_the_options_that_name_others(tmp_path):
    write(tmp_path / "train.tsv", "review\tsentiment\nfine\tgood\n")
    task = get_task("classification", labels=["good", "bad"])
    with pytest.raises(DataError, match=r"no columns 'text', 'label'; columns found: .*--text_column.*--label_column"):
        read(task, tmp_path, "train")


@pytest.mark.parametrize(("odd", "kind"), [(["x"], "list"), ({"name": "x"}, "dict"), ([], "list")])
def test_several_values_in_a_label_or_an_id_are_no_class(tmp_path, odd, kind):
    rows = [{"text": "a", "label": "x", "id": 1}, {"text": "b", "label": odd, "id": 2}, {"text": "c", "label": "y"}]
    path = write(tmp_path / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    task = get_task("classification", data_dir=str(tmp_path))
    assert task.labels == ("x", "y")
    examples, (bad,) = read(task, tmp_path, "train")
    assert [e.label for e in examples] == ["x", "y"]
    assert bad.detail == f"{path}, row 2: field 'label' holds a {kind} ({odd!r}); text or a number is needed"
    write(path, json.dumps({"text": "a", "label": "x", "id": odd}))
    _, (bad,) = read(get_task("classification", labels=["x", "y"], id_column="id"), tmp_path, "train")
    assert f"field 'id' holds a {kind}" in bad.detail


def test_a_file_without_one_label_that_can_be_used_says_why(tmp_path):
    write(tmp_path / "train.jsonl", '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y"]}\n')
    with pytest.raises(DataError, match=r"row 1: field 'label' holds a list .*; no row has a label that can be used"):
        get_task("classification", data_dir=str(tmp_path))
