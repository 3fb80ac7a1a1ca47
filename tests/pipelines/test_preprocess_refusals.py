"""What `pmlm preprocess` does about bad input, failing disks and options that cannot work."""

import contextlib
import gzip
import json
import pickle
import platform
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocessing_data import files_of

from pipelines.cli import main
from pipelines.lock import locked
from pipelines.preprocess.job import _check_apart, prepare
from pipelines.preprocess.ray_stage import do_piece
from pipelines.preprocess.run import _do_missing, dry_run, run
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.corpus.sources import Source
from pmlm_core.errors import ConfigError, DataError
from tests.corpus.corpus_makers import jsonl, write, write_parquet

pytestmark = pytest.mark.usefixtures("ray_session")


BAD = {
    "bad-utf8.jsonl": b'{"text": "\xff\xfe"}\n',
    "nul.jsonl": b'{"text": "a\\u0000b"}\n',
    "no-field.jsonl": b'{"body": "x"}\n',
    "no-json.jsonl": b"what is this\n",
    "empty.jsonl": b"",
    "long.jsonl": b'{"text": "' + b"long " * 30_000 + b'"}\n',
    "broken.parquet": b"PAR1 and nothing more",
    "truncated.jsonl.gz": gzip.compress(jsonl([str(random.Random(i).random()) for i in range(999)]))[:4000],
    "no-zstd.jsonl.zst": b"plain text",
    "notes.md": b"a file of another kind",
}
EXPECTED = {
    "bad-utf8.jsonl": "invalid_utf8",
    "nul.jsonl": "nul_byte",
    "no-field.jsonl": "missing_field",
    "no-json.jsonl": "invalid_json",
    "empty.jsonl": "empty_file",
    "long.jsonl": "too_long",
    "broken.parquet": "corrupt_file",
    "schema.parquet": "wrong_schema",
    "truncated.jsonl.gz": "truncated_file",
    "no-zstd.jsonl.zst": "corrupt_file",
    "notes.md": "unknown_form",
}


def test_bad_input_is_set_aside_counted_and_listed_and_the_rest_goes_on(config, corpus, sample_texts, capsys):
    for name, data in BAD.items():
        (corpus / name).write_bytes(data)
    write_parquet(corpus / "schema.parquet", ["x"], field="body")
    options = config(max_document_bytes=100_000)
    run(options)
    listed = [json.loads(line) for line in (Path(options.output_dir) / "rejects.jsonl").read_text().splitlines()]
    assert {Path(item["file"]).name: item["reason"] for item in listed} == EXPECTED
    assert len(listed) == len(EXPECTED)
    assert {item["row"] for item in listed if "jsonl" in item["file"] and "corrupt" not in item["reason"]} >= {1, None}
    manifest = Manifest.load(options.output_dir)
    assert sum(manifest.rejects.values()) == len(EXPECTED)
    assert manifest.counts["documents"] > len(sample_texts) + 50  # and what came before the break of the .gz
    out = capsys.readouterr().out
    assert "11 items were set aside" in out
    assert "rejects.jsonl" in out
    assert "truncated_file" in out


def test_strict_stops_and_names_the_row_and_what_was_done_is_kept(config, corpus, capsys):
    write(corpus / "zz.jsonl", jsonl(["good"] * 6) + b"bad\n")
    options = config(strict=True)
    with pytest.raises(DataError, match=r"zz\.jsonl, row 7: .*not a JSON object"):
        run(options)
    assert not (Path(options.output_dir) / "manifest.json").exists()
    run(config())
    with pytest.raises(DataError, match=r"zz\.jsonl, row 7"):
        run(options)
    capsys.readouterr()
    dry_run(options)
    assert "finished: nothing is left" not in capsys.readouterr().out
    dry_run(config())
    assert "finished: nothing is left" in capsys.readouterr().out
    write(corpus / "zz.unknown", b"what is this")
    for command in (dry_run, run):
        with pytest.raises(DataError, match=r"zz\.unknown: .*--strict"):
            command(options)


def rejects_of(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "rejects.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("piece_bytes", [1 << 16, 1 << 25])
def test_the_same_file_given_twice_is_said_and_read_once_however_files_are_grouped(
    config, tmp_path, sample_texts, capsys, monkeypatch, piece_bytes
):
    data = jsonl(sample_texts[:20]) + b"bad\n"
    first, again, third = (write(tmp_path / "twice" / f"{name}.jsonl", data) for name in ("a", "b", "c"))
    options = config(inputs=[first, again, third], piece_bytes=piece_bytes)
    run(options)
    assert Manifest.load(options.output_dir).rejects == {"duplicate": 2, "invalid_json": 1}
    assert "the same bytes were given twice" in capsys.readouterr().out
    listed = rejects_of(options.output_dir)
    assert [(item["file"], item["reason"], item["row"]) for item in listed] == [
        (first, "invalid_json", 21),
        (again, "duplicate", None),
        (third, "duplicate", None),
    ]
    assert f"the same bytes as {first}" in listed[1]["detail"]
    made = files_of(options.output_dir)
    monkeypatch.setattr("pipelines.preprocess.run.connected", lambda *a: pytest.fail("Ray was started for nothing"))
    run(options)
    assert files_of(options.output_dir) == made


def test_rows_are_those_of_the_file_behind_a_part_that_is_there_twice(config, tmp_path):
    """The first part of a file is a copy of the first part of another one."""
    block = jsonl(["word " * 500 for _ in range(26)])  # a little over 64 KiB, so cuts fall on its ends
    assert 1 << 16 < len(block) < (1 << 16) + 2600
    tail = jsonl(["other " * 300]) + b"bad\n"
    original = write(tmp_path / "parts" / "a.jsonl", block + jsonl(["so " * 900]))
    copy = write(tmp_path / "parts" / "b.jsonl", block + tail)
    options = config(inputs=[original, copy], piece_bytes=1 << 16)
    run(options)
    listed = rejects_of(options.output_dir)
    assert [(i["file"], i["reason"], i["row"], i["byte_offset"]) for i in listed] == [
        (copy, "duplicate", 1, 0),
        (copy, "invalid_json", 28, len(block) + len(tail) - 4),
    ]
    assert f"bytes 0..{len(block)} of {original}" in listed[0]["detail"]


def test_a_disk_that_fails_stops_one_piece_and_the_same_command_mends_it(config, corpus, tmp_path):
    gone = corpus / "part-3.jsonl"
    options = config()
    job = prepare(options)
    data = gone.read_bytes()
    from pipelines.preprocess.run import _do_missing

    gone.unlink()  # between the listing and the reading
    job.tokenizer.save(f"{options.output_dir}/tokenizer")
    with pytest.raises(DataError, match=r"pieces could not be done, so there is no new manifest.*\n.*part-3\.jsonl"):
        _do_missing(job)
    assert len(job.missing) == 1
    assert not (tmp_path / "blocks" / "manifest.json").exists()
    gone.write_bytes(data)
    run(options)
    assert Manifest.load(options.output_dir).rows("train")


def test_a_worker_that_sees_no_tokenizer_or_another_one_says_on_which_machine(config, tmp_path, sample_tokenizer_dir):
    job = prepare(config())
    item = {"number": 0, "piece": pickle.dumps(job.pieces[0])}
    for folder, message in (
        (str(tmp_path / "none"), "seen by every machine"),
        (sample_tokenizer_dir, "the same folder"),
    ):
        done = do_piece(
            item, options=job.options, folder=folder, fingerprint="another", output_dir=job.output_dir, strict=False
        )
        assert done["row"] == ""
        assert f"machine {platform.node()}" in done["error"]
        assert message in done["error"]
    assert not (tmp_path / "blocks").exists()


def test_nothing_readable_at_all_is_an_error(config, tmp_path):
    write(tmp_path / "bad" / "a.jsonl", b"no\n")
    with pytest.raises(DataError, match=r"no training rows came of the input \(1 file\): 1 invalid_json, the first in"):
        run(config(inputs=[str(tmp_path / "bad")]))


def test_a_wrong_column_is_answered_with_the_option_and_the_columns_there_are(config, tmp_path):
    inputs = tmp_path / "bad"
    inputs.mkdir()
    pq.write_table(pa.table({"id": [1], "body": ["some text"]}), inputs / "a.parquet")
    said = r"a\.parquet: .*no column 'text'; columns: id, body; --text_field says which holds the text"
    for command in (dry_run, run):
        with pytest.raises(DataError, match=said):
            command(config(inputs=[str(inputs)]))
    (listed,) = (json.loads(line) for line in (tmp_path / "blocks" / "rejects.jsonl").read_text().splitlines())
    assert listed["reason"] == "wrong_schema"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": []}, "needs --inputs"),
        ({"tokenizer": ""}, "needs --tokenizer"),
        ({"output_dir": ""}, "needs --output_dir"),
        ({"max_length": 4}, "max_length must be from 5 to 65,535, not 4"),
        ({"max_length": 70_000}, "max_length must be"),
        ({"views": 0}, "views must be from 1 to 1,000, not 0"),
        ({"mask_prob": 1.0}, "mask_prob"),
        ({"block_prob": 1.5}, "block_prob"),
        ({"min_block": 5, "max_block": 3}, "min_block 5 is greater"),
        ({"max_block": 256}, "max_block must be from 1 to 255, not 256"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"num_workers": 0}, "num_workers"),
        ({"piece_bytes": 10}, "piece_bytes"),
        ({"text_field": ""}, "text_field"),
        ({"inputs": ["nothing/here"]}, "no such file"),
        ({"tokenizer": "nothing/here"}, "no tokenizer there"),
    ],
)
def test_what_cannot_work_is_refused_before_ray(config, changes, message, monkeypatch):
    monkeypatch.setattr("pipelines.preprocess.run.connected", lambda *a: pytest.fail("Ray was started"))
    with pytest.raises((ConfigError, DataError), match=message):
        run(config(**changes))


def test_blocks_of_another_form_are_not_replaced_under_a_run(config):
    options = config()
    run(options)
    before = files_of(options.output_dir)
    with pytest.raises(ConfigError, match=r"max_length was 32 and is 64, seed was 0 and is 1\); choose another one"):
        run(config(max_length=64, seed=1))
    assert files_of(options.output_dir) == before


def test_output_inside_the_input_is_refused(config, corpus, tmp_path):
    with pytest.raises(ConfigError, match="lies inside output_dir"):
        run(config(output_dir=str(tmp_path)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        run(config(output_dir=str(tmp_path / "file")))
    with pytest.raises(ConfigError, match="file is not a folder"):
        run(config(output_dir=str(tmp_path / "file" / "x")))


def test_output_inside_the_input_is_refused_in_a_bucket_too():
    query = "?endpoint_override=localhost:1&scheme=http"
    inside, beside = (Source(f"s3://b/{name}/a.jsonl{query}", 1, 0, "jsonl") for name in ("out", "out2"))
    _check_apart(f"s3://b/out{query}", [beside])
    with pytest.raises(ConfigError, match="lies inside output_dir"):
        _check_apart(f"s3://b/out{query}", [beside, inside])


def test_the_command_line_refuses_unknown_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["preprocess", "--view", "3"])
    assert stopped.value.code == 2
    assert "did you mean 'views'" in capsys.readouterr().err


def test_a_second_command_in_the_same_folder_is_refused(config):
    options = config()
    run(options)
    with (
        locked(options.output_dir, "pmlm preprocess", named_by="output_dir"),
        pytest.raises(ConfigError, match=r"in use by pmlm preprocess .* another output_dir"),
    ):
        run(options)


def test_blocks_of_other_options_that_appear_while_it_works_are_not_replaced(config, monkeypatch):
    """In a store, which has no locks, two commands may have begun in an empty folder."""
    other = config(max_length=64)
    monkeypatch.setattr("pipelines.preprocess.run._alone_in", lambda folder: contextlib.nullcontext())
    real = _do_missing
    calls = []

    def meanwhile(job):
        calls.append(job)
        if len(calls) == 1:
            run(other)
        real(job)

    monkeypatch.setattr("pipelines.preprocess.run._do_missing", meanwhile)
    with pytest.raises(ConfigError, match="max_length was 64 and is 32"):
        run(config(max_length=32))
    assert Manifest.load(other.output_dir).max_length == 64
