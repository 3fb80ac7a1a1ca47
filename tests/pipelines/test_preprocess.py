"""`pmlm preprocess` end to end over Ray: real files in, blocks out, the same whoever made them and however often."""

import json
import os
import random
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocessing_data import files_of

from pipelines.cli import main
from pipelines.preprocess import ray_stage
from pipelines.preprocess.config import PreprocessConfig
from pipelines.preprocess.job import prepare
from pipelines.preprocess.run import dry_run, leads_to, run
from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.corpus.manifest import Manifest
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError
from tests.corpus.corpus_makers import jsonl, write

pytestmark = pytest.mark.usefixtures("ray_session")


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
    trial = re.search(r"^pmlm (pretrain .*?) \(a short trial", leads_to(options, None))
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
    dry_run(options)
    out = capsys.readouterr().out
    assert out.endswith(f"the blocks in {options.output_dir} are finished: nothing is left to do\n")
    assert "Ray" not in out


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
    kept = Path(config().output_dir) / f"manifest-{before.fingerprint[:12]}.json"
    assert Manifest.from_json(kept.read_bytes()) == before  # for a run on those blocks
    (corpus / "zz.jsonl").unlink()
    kept.unlink()
    run(config())
    kept = Path(config().output_dir) / f"manifest-{grown.fingerprint[:12]}.json"
    assert [path.name for path in Path(config().output_dir).glob("manifest-*")] == [kept.name]
    again = Manifest.load(config().output_dir)
    assert again.fingerprint == before.fingerprint
    assert again.splits == before.splits
    assert f"are not of these blocks; runs on the blocks of before need them ({kept.name})" in capsys.readouterr().out
    assert len(BlockSet.open(config().output_dir)) == before.rows("train")


def test_another_tokenizer_is_refused(config, tmp_path, sample_texts):
    from pmlm_core.corpus.tokenizer import train

    run(config())
    train(sample_texts, vocab_size=500, seed=1).save(str(tmp_path / "other"))
    before = files_of(config().output_dir)
    with pytest.raises(ConfigError, match="blocks of another tokenizer"):
        run(config(tokenizer=str(tmp_path / "other")))
    assert files_of(config().output_dir) == before
    for damaged in (Path(config().output_dir) / "tokenizer").iterdir():  # the manifest still says which it was
        damaged.write_bytes(b"?")
    with pytest.raises(ConfigError, match="blocks of another tokenizer"):
        run(config(tokenizer=str(tmp_path / "other")))


def test_dry_run_writes_nothing_and_reckons_near_the_truth(config, capsys, tmp_path):
    options = config()
    dry_run(options)
    out = capsys.readouterr().out
    assert not Path(options.output_dir).exists()
    run(options)
    manifest = Manifest.load(options.output_dir)
    reckoned = float(re.search(r"about ([\d.]+) k tokens in", out)[1]) * 1e3
    assert reckoned == pytest.approx(manifest.counts["text_tokens"], rel=0.6, abs=6e4)
    assert "seconds to start Ray" in out


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
    rows = int(out.split(" tokens in ")[1].split(" rows")[0].replace(",", ""))
    assert rows == pytest.approx(tokens / 29, rel=0.02)


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
