"""GLUE's files, each in the form it was published in (sentences are made up), and what may be wrong with them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.glue import SPECS, glue_task
from tests.tasks.task_makers import read, write

MNLI_HEADER = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
    "\tsentence1\tsentence2\tlabel1\t{more}gold_label\n"
)
STSB_HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"


# (task, file, content, split, [(id, row, text_a, text_b, label)])
PUBLISHED = [
    (
        "cola",
        "CoLA/train.tsv",
        'gj04\t1\t\tA "cat sat.\nbc81\t0\t*\tSat cat the.',
        "train",
        [("0", 1, 'A "cat sat.', None, "1"), ("1", 2, "Sat cat the.", None, "0")],
    ),
    (
        "cola",
        "CoLA/test.tsv",
        "index\tsentence\n0\tA cat.\n1\tThe dog.\n",
        "test",
        [("0", 2, "A cat.", None, None), ("1", 3, "The dog.", None, None)],
    ),
    (
        "sst2",
        "SST-2/dev.tsv",
        "sentence\tlabel\nit 's fun . \t1\r\ndull \t0\r\n",
        "dev",
        [("0", 2, "it 's fun . ", None, "1"), ("1", 3, "dull ", None, "0")],
    ),
    (
        "mrpc",
        "MRPC/dev.tsv",
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t11\t12\tHe said no.\t"No, he said.\r\n',
        "dev",
        [("0", 2, "He said no.", '"No, he said.', "1")],
    ),
    (
        "mrpc",
        "MRPC/test.tsv",
        "\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n7\t21\t22\tA.\tB.\n",
        "test",
        [("7", 2, "A.", "B.", None)],
    ),
    (
        "qqp",
        "QQP/train.sample.tsv",
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n133273\t1\t2\tWhat is "x\u2028y"?\t\t0\n',
        "train",
        [("0", 2, 'What is "x\u2028y"?', "", "0")],
    ),
    ("qqp", "QQP/test.tsv", "id\tquestion1\tquestion2\n0\tA?\tB?\n", "test", [("0", 2, "A?", "B?", None)]),
    (
        "stsb",
        "STS-B/train.tsv",
        f"{STSB_HEADER}\tscore\n0\tnews\tMSRvid\t2012\t0001\tnone\tnone\tA plane.\tA jet.\t3.800\n",
        "train",
        [("0", 2, "A plane.", "A jet.", 3.8)],
    ),
    (
        "stsb",
        "STS-B/test.tsv",
        f"{STSB_HEADER}\n0\tnews\tx\t2012\t0001\tnone\tnone\tA.\tB.\n",
        "test",
        [("0", 2, "A.", "B.", None)],
    ),
    (
        "mnli",
        "MNLI/train.tsv",
        MNLI_HEADER.format(more="") + "0\t1\t1n\tfiction\t(\t(\t(\t(\tIt rains.\tIt is wet.\tneutral\tneutral\n",
        "train",
        [("0", 2, "It rains.", "It is wet.", "neutral")],
    ),
    (
        "mnli",
        "MNLI/dev_mismatched.tsv",
        MNLI_HEADER.format(more="label2\tlabel3\tlabel4\tlabel5\t")
        + "0\t1\t1n\tx\t(\t(\t(\t(\tIt rains.\tIt is dry.\tneutral\tneutral\t\t\t\tcontradiction\n",
        "dev_mismatched",
        [("0", 2, "It rains.", "It is dry.", "contradiction")],
    ),
    (
        "mnli",
        "MNLI/test_matched.tsv",
        MNLI_HEADER.split("\tlabel1")[0] + "\n9796\t1\t1n\tx\t(\t(\t(\t(\tA.\tB.\n",
        "test_matched",
        [("9796", 2, "A.", "B.", None)],
    ),
    (
        "qnli",
        "QNLI/dev.tsv",
        "index\tquestion\tsentence\tlabel\n0\tWho?\tShe came.\tentailment\n",
        "dev",
        [("0", 2, "Who?", "She came.", "entailment")],
    ),
    (
        "rte",
        "RTE/dev.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n",
        "dev",
        [("0", 2, "A.", "B.", "not_entailment")],
    ),
    (
        "wnli",
        "WNLI/train.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n",
        "train",
        [("0", 2, "A.", "B.", "1")],
    ),
    (
        "ax",
        "diagnostic/diagnostic.tsv",
        "index\tsentence1\tsentence2\n0\tA.\tB.\n1\tB.\tA.\n",
        "test",
        [("0", 2, "A.", "B.", None), ("1", 3, "B.", "A.", None)],
    ),
]


@pytest.mark.parametrize(("name", "file", "content", "split", "expected"), PUBLISHED, ids=lambda x: str(x)[:24])
def test_published_form(tmp_path, name, file, content, split, expected):
    path = write(tmp_path / file, content)
    for folder in (tmp_path, path.parent):  # the folder of all tasks, and the task's own
        examples, bad = read(glue_task(name), folder, split)
        assert [(e.id, e.row, e.text_a, e.text_b, e.label) for e in examples] == expected
        assert bad == []


@pytest.mark.parametrize("name", sorted(set(SPECS) - {"ax", "stsb"}))
def test_the_hub_s_parquet(tmp_path, name):
    """Labels are places in the list of classes, in the hub's order; two parts are read one after the other."""
    task, spec = glue_task(name), SPECS[name]
    texts = spec.hub_texts or spec.texts
    for part in range(2):
        columns = {column: [f"{column} {part}{i}" for i in range(len(task.labels))] for column in texts}
        table = pa.table({**columns, "label": list(range(len(task.labels))), "idx": [5] * len(task.labels)})
        (tmp_path / name).mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / name / f"train-0000{part}-of-00002.parquet")
    examples, bad = read(task, tmp_path, "train")
    assert bad == []
    assert [e.label for e in examples] == [*task.labels, *task.labels]
    assert [e.id for e in examples] == [str(i) for i in range(2 * len(task.labels))]
    assert examples[-1].text_a == f"{texts[0]} 1{len(task.labels) - 1}"
    assert (examples[0].text_b is None) == (len(texts) == 1)


def test_the_hub_s_test_sets_have_minus_one_for_labels(tmp_path):
    pq.write_table(pa.table({"sentence": ["a"], "label": [-1]}), tmp_path / "test-00000-of-00001.parquet")
    (example,), _ = read(glue_task("cola"), tmp_path, "test")
    assert example.label is None
    pq.write_table(
        pa.table({"sentence1": ["a"], "sentence2": ["b"], "label": [-1.0]}),
        tmp_path / "validation-00000-of-00001.parquet",
    )
    examples, (bad,) = read(glue_task("stsb"), tmp_path, "dev")
    assert (examples, bad.reason) == ([], "number out of range")


def test_mrpc_as_microsoft_published_it(tmp_path):
    """One labelled file for train and dev, divided by GLUE's list of pairs; the test file is labelled too."""
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    write(tmp_path / "msr_paraphrase_train.txt", header + "1\t1\t2\tA\tB\r\n0\t3\t4\tC\tD\r\n1\t2\t1\tE\tF\r\n")
    write(tmp_path / "msr_paraphrase_test.txt", header + "0\t8\t9\tX\tY\r\n")
    task = glue_task("mrpc")
    with pytest.raises(DataError, match=r"dev_ids\.tsv"):
        read(task, tmp_path, "train")
    write(tmp_path / "dev_ids.tsv", "2\t1\n")
    assert [e.text_a for e in read(task, tmp_path, "train")[0]] == ["A", "C"]
    assert [(e.text_a, e.label) for e in read(task, tmp_path, "dev")[0]] == [("E", "1")]
    assert [(e.id, e.text_a, e.label) for e in read(task, tmp_path, "test")[0]] == [("0", "X", "0")]


def test_bad_rows_name_file_row_and_field(tmp_path):
    file = write(
        tmp_path / "RTE/train.tsv",
        b"index\tsentence1\tsentence2\tlabel\n"
        b"0\tfine\tfine\tentailment\n"
        b"1\tcaf\xe9\tb\tentailment\n"
        b"2\ta\tb\tmaybe\n"
        b"3\ta\tb\n"
        b"4\ta\tb\t\n"
        b"\n"
        b"6\ta\tb\tnot_entailment\n",
    )
    examples, bad = read(glue_task("rte"), tmp_path, "train")
    assert [(e.id, e.row) for e in examples] == [("0", 2), ("5", 8)]
    assert [(b.row, b.reason) for b in bad] == [
        (3, "invalid UTF-8"),
        (4, "unknown label"),
        (5, "wrong number of fields"),
        (6, "missing label"),
    ]
    assert all(b.file == str(file) and b.detail.startswith(f"{file}, row {b.row}: ") for b in bad)
    assert "field 'sentence1' is not UTF-8: byte 0xe9 at character 3" in bad[0].detail
    assert "field 'label' holds 'maybe'; labels are entailment, not_entailment" in bad[1].detail


@pytest.mark.parametrize("score", ["x", "nan", "inf", "5.1", "-0.5"])
def test_scores_outside_the_scale(tmp_path, score):
    write(tmp_path / "train.tsv", f"sentence1\tsentence2\tscore\na\tb\t{score}\n")
    examples, (bad,) = read(glue_task("stsb"), tmp_path, "train")
    assert examples == []
    assert bad.reason in ("invalid number", "number out of range")
    assert "'score'" in bad.detail


def test_bytes_that_are_not_utf8_in_a_column_nobody_reads(tmp_path):
    write(tmp_path / "dev.tsv", b"index\tgenre\tsentence1\tsentence2\tlabel\n0\t\xff\ta\tb\t0\n")
    examples, bad = read(glue_task("wnli"), tmp_path, "dev")
    assert (len(examples), bad) == (1, [])


def test_a_missing_column_names_those_found(tmp_path):
    file = write(tmp_path / "dev.tsv", "index\tpremise\tsentence2\tlabel\n0\ta\tb\t0\n")
    with pytest.raises(DataError) as caught:
        read(glue_task("wnli"), tmp_path, "dev")
    assert str(caught.value) == (
        f"{file}: no column 'sentence1'; columns found: 'index', 'premise', 'sentence2', 'label'"
    )


def test_a_missing_file_says_what_was_looked_for(tmp_path):
    write(tmp_path / "MNLI/dev_matched.tsv", "x")
    with pytest.raises(DataError) as caught:
        read(glue_task("mnli"), tmp_path, "dev_mismatched")
    message = str(caught.value)
    for part in ("split 'dev_mismatched' of task 'mnli'", "dev_mismatched.tsv", "MNLI", str(tmp_path)):
        assert part in message


def test_empty_and_utf16_files(tmp_path):
    write(tmp_path / "dev.tsv", "")
    with pytest.raises(DataError, match="is empty"):
        read(glue_task("rte"), tmp_path, "dev")
    write(tmp_path / "dev.tsv", "sentence1\tsentence2\tlabel\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        read(glue_task("rte"), tmp_path, "dev")


def test_the_diagnostic_set_is_a_split_of_mnli(tmp_path):
    """A model of MNLI predicts it, in the form and under the name in which it is handed in."""
    write(tmp_path / "AX/AX.tsv", "index\tsentence1\tsentence2\n0\tA.\tB.\n")
    task = glue_task("mnli")
    examples, bad = read(task, tmp_path, "test_ax")
    assert [(e.id, e.text_a, e.text_b, e.label) for e in examples] == [("0", "A.", "B.", None)]
    assert bad == []
    (file,) = task.write_predictions(str(tmp_path), "test_ax", examples, {"0": "neutral"})
    assert file == f"{tmp_path}/AX.tsv"
