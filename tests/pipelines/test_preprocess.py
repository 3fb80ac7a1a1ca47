"""`pmlm preprocess` end to end over Ray: real files in, blocks out, everything bad set aside and said."""

import gzip
import json
import os
import pickle
import platform
import random
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from pipelines.preprocess import ray_stage
from pipelines.preprocess.config import PreprocessConfig
from pipelines.preprocess.job import _check_apart, prepare
from pipelines.preprocess.ray_stage import do_piece
from pipelines.preprocess.run import dry_run, run
from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.corpus.sources import Source
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError
from tests.corpus.corpus_makers import jsonl, write, write_parquet

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def corpus(tmp_path, sample_texts) -> Path:
    """Six files; 64 KiB pieces make several tasks of them."""
    folder = tmp_path / "corpus"
    for i in range(5):
        write(folder / f"part-{i}.jsonl{('', '.gz', '.zst')[i % 3]}", jsonl(sample_texts[i::5]))
    write_parquet(folder / "more.parquet", list(sample_texts[:50]))
    return folder


@pytest.fixture
def config(corpus, tmp_path, sample_tokenizer_dir):
    def make(**changes: object) -> PreprocessConfig:
        options = {
            "inputs": [str(corpus)],
            "tokenizer": sample_tokenizer_dir,
            "output_dir": str(tmp_path / "blocks"),
            "max_length": 32,
            "views": 2,
            "validation_fraction": 0.1,
            "piece_bytes": 1 << 16,
        }
        return PreprocessConfig(**{**options, **changes})  # type: ignore[arg-type]

    return make


def files_of(folder: str) -> dict[str, bytes]:
    """All files below a folder except the tokenizer's."""
    root = Path(folder)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_blocks_come_out_whole_and_say_what_they_are(config, corpus, sample_texts, sample_tokenizer_dir, capsys):
    options = config()
    run(options)
    manifest = Manifest.load(options.output_dir)
    assert manifest.counts["documents"] == len(sample_texts) + 50
    assert manifest.rejects == {}
    assert len(manifest.splits["train"]) > 2
    tokenizer = TextTokenizer.load(f"{options.output_dir}/tokenizer")
    assert (
        tokenizer.fingerprint == manifest.tokenizer_fingerprint == TextTokenizer.load(sample_tokenizer_dir).fingerprint
    )
    train = BlockSet.open(options.output_dir)
    held_out = BlockSet.open(options.output_dir, split="validation")
    assert len(train) == manifest.rows("train") > 10 * len(held_out) * 0.3
    total = 0
    for blocks in (train, held_out):
        rows = blocks.rows(np.arange(len(blocks)), 1)
        special = np.isin(rows.input_ids, [tokenizer.special_ids.sos, tokenizer.special_ids.eos])
        total += int((~special).sum())
    assert total == manifest.counts["text_tokens"]
    out = capsys.readouterr().out
    assert "nothing was set aside" in out
    trial = re.search(r"^next: pmlm (pretrain .*?) \(a short trial", out, re.MULTILINE)
    assert trial
    assert f"--data_dir {options.output_dir} " in trial[1]
    assert "--max_steps 100" in trial[1]
    with pytest.raises(SystemExit) as done:
        main([*shlex.split(trial[1]), "--tracking_uri", "none", "--dry_run"])
    assert done.value.code == 0
    assert "100 steps of 16 rows" in capsys.readouterr().out
    assert f"{manifest.rows('train'):,}" in out


def test_the_number_of_workers_does_not_show(config, tmp_path):
    made = []
    for workers, folder in ((1, "one"), (2, "two"), (None, "all")):
        run(config(num_workers=workers, output_dir=str(tmp_path / folder)))
        made.append(files_of(str(tmp_path / folder)))
    assert made[0] == made[1] == made[2]
    assert len(made[0]) > 8


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


def test_strict_stops_and_names_the_row_and_what_was_done_is_kept(config, corpus):
    write(corpus / "zz.jsonl", jsonl(["good"] * 6) + b"bad\n")
    options = config(strict=True)
    with pytest.raises(DataError, match=r"zz\.jsonl, row 7: .*not a JSON object"):
        run(options)
    assert not (Path(options.output_dir) / "manifest.json").exists()
    run(config())
    with pytest.raises(DataError, match=r"zz\.jsonl, row 7"):
        run(options)


def verified(options: PreprocessConfig) -> int:
    """Exit code of `pmlm doctor` that reads the blocks."""
    about = ["--preset", "tiny", "--data_dir", options.output_dir, "--output_dir", f"{options.output_dir}-runs"]
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--verify_blocks", "--cluster", "false", "--", "pretrain", *about, "--tracking_uri", "none"])
    return int(caught.value.code or 0)


def test_run_again_it_does_only_what_is_missing(config, corpus, tmp_path, capsys):
    options = config()
    run(options)
    first = files_of(options.output_dir)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "blocks" / "shards").iterdir()}
    gone = sorted(times)[0]
    content = bytearray(gone.read_bytes())
    content[len(content) // 2] ^= 1
    gone.write_bytes(content)
    capsys.readouterr()
    assert verified(options) == 1
    assert f"1 of {len(times)} shards in {options.output_dir} differ" in (out := capsys.readouterr().out)
    assert f"written there: {gone}" in out
    gone.unlink()  # as the finding says
    run(options)
    out = capsys.readouterr().out
    assert verified(options) == 0
    assert f"{len(times)} shards read and compared" in capsys.readouterr().out
    assert files_of(options.output_dir) == first
    changed = {p.name.split(".")[0] for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert changed == {gone.name.split(".")[0]}
    pieces = len(prepare(options).pieces)
    assert f"finished already: {pieces - 1}" in out


def test_what_killed_runs_left_behind_is_no_obstacle(config, tmp_path, capsys):
    options = config()
    run(options)
    first = files_of(options.output_dir)
    blocks = tmp_path / "blocks"
    (blocks / "manifest.json").write_text("{half")
    (blocks / "tokenizer" / "tokenizer.model").unlink()
    old, young = blocks / "shards" / ".pmlm-1-old.tmp", blocks / "shards" / ".pmlm-2-young.tmp"
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    young.write_bytes(b"x")
    olds = [blocks / ".a.tmp", blocks / "ledger" / ".b.json.1.tmp", blocks / "tokenizer" / ".c.tmp"]
    for path in olds:
        path.write_bytes(b"x")
        os.utime(path, (1, 1))
    sorted((blocks / "ledger").iterdir())[0].unlink()
    run(options)
    assert "not valid JSON" in capsys.readouterr().out
    assert not any(path.exists() for path in [old, *olds])
    assert young.exists()
    young.unlink()
    assert files_of(options.output_dir) == first
    assert TextTokenizer.load(str(blocks / "tokenizer")).vocab_size == 1000


def test_room_is_made_before_anything_is_written(config, tmp_path, monkeypatch):
    old = tmp_path / "blocks" / "shards" / ".pmlm-1-old.tmp"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")
    os.utime(old, (1, 1))

    def disk_full(*_: object, **__: object) -> None:
        assert not old.exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TextTokenizer, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        run(config())


def test_with_nothing_missing_ray_is_not_asked(config, monkeypatch):
    run(config())
    monkeypatch.setattr("pipelines.preprocess.run.connected", lambda *a: pytest.fail("Ray was started for nothing"))
    run(config())


def test_added_and_removed_input_give_a_new_manifest_and_mix_nothing(config, corpus, sample_texts, capsys):
    run(config())
    before = Manifest.load(config().output_dir)
    write(corpus / "zz.jsonl", jsonl([text.upper() for text in sample_texts]))
    run(config())
    grown = Manifest.load(config().output_dir)
    shared = {e.path for e in before.splits["train"]} & {e.path for e in grown.splits["train"]}
    assert len(shared) >= len(before.splits["train"]) - 1
    assert grown.rows("train") > before.rows("train")
    assert len({each.config["input_fingerprint"] for each in (before, grown)}) == 2
    (corpus / "zz.jsonl").unlink()
    run(config())
    again = Manifest.load(config().output_dir)
    assert again.fingerprint == before.fingerprint
    assert again.splits == before.splits
    assert "are not used any more" in capsys.readouterr().out
    assert len(BlockSet.open(config().output_dir)) == before.rows("train")


def test_another_tokenizer_is_refused(config, tmp_path, sample_texts):
    from pmlm_core.corpus.tokenizer import train

    run(config())
    train(sample_texts, vocab_size=500, seed=1).save(str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="blocks of another tokenizer"):
        run(config(tokenizer=str(tmp_path / "other")))


def rejects_of(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "rejects.jsonl").read_text().splitlines()]


def test_the_same_file_given_twice_is_said_and_known_by_the_next_run(
    config, tmp_path, sample_texts, capsys, monkeypatch
):
    data = jsonl(sample_texts[:20]) + b"bad\n"
    first, again, third = (write(tmp_path / "twice" / f"{name}.jsonl", data) for name in ("a", "b", "c"))
    options = config(inputs=[first, again, third], piece_bytes=1 << 16)
    monkeypatch.setattr("pmlm_core.corpus.pieces._begins_a_piece", lambda *_: True)  # no grouping of the three
    run(options)
    assert Manifest.load(options.output_dir).rejects == {"duplicate": 2, "invalid_json": 1}
    assert "the same bytes were given twice" in capsys.readouterr().out
    listed = rejects_of(options.output_dir)
    assert [(item["file"], item["reason"], item["row"]) for item in listed] == [
        (first, "invalid_json", 21),
        (again, "duplicate", 1),
        (third, "duplicate", 1),
    ]
    assert f"bytes 0..{len(data)} of {first}" in listed[1]["detail"]
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


def test_a_wrong_column_is_answered_with_the_option_and_the_columns_there_are(config, tmp_path, capsys):
    inputs = tmp_path / "bad"
    inputs.mkdir()
    pq.write_table(pa.table({"id": [1], "body": ["some text"]}), inputs / "a.parquet")
    said = r"a\.parquet: .*no column 'text'; columns: id, body; --text_field says which holds the text"
    dry_run(config(inputs=[str(inputs)]))
    assert re.search(said, capsys.readouterr().out)
    with pytest.raises(DataError, match=said):
        run(config(inputs=[str(inputs)]))
    (listed,) = (json.loads(line) for line in (tmp_path / "blocks" / "rejects.jsonl").read_text().splitlines())
    assert listed["reason"] == "wrong_schema"


def test_dry_run_writes_nothing_and_reckons_near_the_truth(config, capsys, tmp_path):
    options = config()
    dry_run(options)
    out = capsys.readouterr().out
    assert not Path(options.output_dir).exists()
    run(options)
    manifest = Manifest.load(options.output_dir)
    reckoned = float(out.split("million tokens")[0].split("about")[-1]) * 1e6
    assert reckoned == pytest.approx(manifest.counts["text_tokens"], rel=0.6, abs=6e4)
    assert "minutes" in out


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_dry_run_does_not_take_what_stands_around_the_text_for_text(config, tmp_path, sample_texts, capsys, form):
    inputs = tmp_path / "padded"
    padding = [f"{random.Random(i).getrandbits(8000):x}" for i in range(len(sample_texts))]
    inputs.mkdir()
    if form == "jsonl":
        rows = (json.dumps({"text": t, "meta": p}) + "\n" for t, p in zip(sample_texts, padding, strict=True))
        write(inputs / "a.jsonl", "".join(rows).encode())
    else:
        pq.write_table(pa.table({"text": list(sample_texts), "meta": padding}), inputs / "a.parquet", row_group_size=50)
    dry_run(config(inputs=[str(inputs)], piece_bytes=1 << 20))
    out = capsys.readouterr().out
    tokenizer = TextTokenizer.load(config().tokenizer)
    tokens = sum(map(len, tokenizer.encode(list(sample_texts))))
    rows = int(out.split("million tokens in ")[1].split(" rows")[0].replace(",", ""))
    assert rows == pytest.approx(tokens / 29, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": []}, "needs --inputs"),
        ({"tokenizer": ""}, "needs --tokenizer"),
        ({"output_dir": ""}, "needs --output_dir"),
        ({"max_length": 4}, "max_length is 4"),
        ({"max_length": 70_000}, "max_length is 70000"),
        ({"views": 0}, "views is 0"),
        ({"mask_prob": 1.0}, "mask_prob"),
        ({"block_prob": 1.5}, "block_prob"),
        ({"min_block": 5, "max_block": 3}, "min_block 5 is greater"),
        ({"max_block": 256}, "max_block is 256"),
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


def test_the_largest_pieces_are_begun_first(config, monkeypatch):
    job = prepare(config())
    assert len({piece.weight for piece in job.pieces}) > 1
    begun: list[int] = []

    def over_ray(task, items, **_):
        begun.extend(item["number"] for item in items)
        return iter(())

    monkeypatch.setattr(ray_stage, "over_ray", over_ray)
    pieces = dict(enumerate(job.pieces))
    told = {"tokenizer_fingerprint": "", "strict": False, "num_workers": 2}
    assert not list(ray_stage.run_pieces(pieces, job.options, "", "", **told))
    assert sorted(begun) == sorted(pieces)
    assert [pieces[number].weight for number in begun] == sorted((p.weight for p in job.pieces), reverse=True)
