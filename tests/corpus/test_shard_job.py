"""One piece to shards: what the shards hold, that equal input gives equal bytes, that nothing half-made is left."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pytest

from pmlm_core import storage
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.holdout import SECTION_CHARACTERS, HeldOut
from pmlm_core.corpus.ledger import is_finished, load_ledger, load_row, piece_identity
from pmlm_core.corpus.reports import rejected_items
from pmlm_core.corpus.shard_job import ShardOptions, options_fingerprint, run_piece
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import DataError
from tests.corpus.corpus_makers import jsonl, pieces_of, write, write_parquet


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir):
    return TextTokenizer.load(sample_tokenizer_dir)


@pytest.fixture
def corpus(tmp_path, sample_texts) -> str:
    return write(tmp_path / "corpus.jsonl", jsonl(sample_texts))


def shard(out: Path, row, split: str = "train") -> pa.Table:
    return pa.ipc.open_file(out / row.shards[split].path).read_all()


def test_shards_hold_the_text_in_order_and_the_held_out_text_apart(tmp_path, corpus, sample_texts, tokenizer):
    options = ShardOptions(max_length=32, views=2, validation_fraction=0.2, seed=3)
    ((piece,), _) = pieces_of(corpus)
    row = run_piece(piece, options, tokenizer, str(tmp_path / "out"))
    held_out = HeldOut(0.2, 3)
    ids = tokenizer.special_ids
    for split in ("train", "validation"):
        texts = [text for text in sample_texts if next(iter(held_out.parts(text)))[0] == split]
        assert texts
        expected = np.concatenate(tokenizer.encode(texts))
        table = shard(tmp_path / "out", row, split)
        stored = np.concatenate([np.array(tokens) for tokens in table["input_ids"].to_pylist()])
        assert np.array_equal(stored[~np.isin(stored, [ids.sos, ids.eos])], expected)
        assert table.num_rows == row.shards[split].rows
        assert table.schema.names[2:] == [
            f"{n}_{v}" for v in range(2) for n in ("positions", "step_lengths", "replacements")
        ]
    assert row.counts["documents"] == len(sample_texts)
    assert row.counts["input_bytes"] == Path(corpus).stat().st_size
    assert row.counts["text_bytes"] == sum(len(text.encode()) for text in sample_texts)
    assert row.counts["text_tokens"] == sum(map(len, tokenizer.encode(sample_texts)))
    assert sorted(path.name for path in (tmp_path / "out" / "shards").iterdir()) == sorted(
        [f"{row.key}.arrow", f"{row.key}.validation.arrow"]
    )


def test_equal_arguments_give_equal_bytes_and_other_ones_another_key(tmp_path, corpus, tokenizer):
    options = ShardOptions(max_length=32, views=1)
    ((piece,), _) = pieces_of(corpus)
    rows = [run_piece(piece, options, tokenizer, str(tmp_path / out)) for out in ("one", "two")]
    assert rows[0] == rows[1]
    name = f"{rows[0].key}.arrow"
    assert (tmp_path / "one/shards" / name).read_bytes() == (tmp_path / "two/shards" / name).read_bytes()
    changed = [
        ShardOptions(max_length=33, views=1),
        ShardOptions(max_length=32, views=2),
        ShardOptions(max_length=32, views=1, seed=1),
        ShardOptions(max_length=32, views=1, documents_share_windows=False),
        ShardOptions(max_length=32, views=1, mask_prob=0.2),
        ShardOptions(InputFormat(text_field="body"), max_length=32, views=1),
    ]
    prints = {options_fingerprint(each, tokenizer) for each in [options, *changed]}
    assert len(prints) == 1 + len(changed)
    # `auto` and `jsonl` read these files alike, so the blocks are the same.
    same = ShardOptions(InputFormat("jsonl"), max_length=32, views=1)
    assert options_fingerprint(same, tokenizer) == options_fingerprint(options, tokenizer)


def test_the_size_of_batches_does_not_show(tmp_path, corpus, tokenizer, monkeypatch):
    options = ShardOptions(max_length=32, views=2, validation_fraction=0.1)
    ((piece,), _) = pieces_of(corpus)
    first = run_piece(piece, options, tokenizer, str(tmp_path / "one"))
    monkeypatch.setattr("pmlm_core.corpus.shard_job._BATCH_DOCUMENTS", 7)
    second = run_piece(piece, options, tokenizer, str(tmp_path / "two"))
    assert first.shards == second.shards


def test_long_documents_are_encoded_in_parts_to_the_same_tokens(tmp_path, sample_texts, tokenizer, monkeypatch):
    path = write(tmp_path / "a.txt", "\n".join(sample_texts).encode())
    ((piece,), fmt) = pieces_of(path, "text_files")
    options = ShardOptions(fmt, max_length=32, views=1)
    whole = run_piece(piece, options, tokenizer, str(tmp_path / "one"))
    monkeypatch.setattr("pmlm_core.corpus.shard_job._LONG_CHARACTERS", 20_000)
    assert run_piece(piece, options, tokenizer, str(tmp_path / "two")).shards == whole.shards


def test_finished_work_is_not_done_again_and_damaged_work_is(tmp_path, corpus, tokenizer, monkeypatch):
    options = ShardOptions(max_length=32, views=1)
    ((piece,), _) = pieces_of(corpus)
    out = tmp_path / "out"
    row = run_piece(piece, options, tokenizer, str(out))
    path = out / row.shards["train"].path
    whole, when = path.read_bytes(), path.stat().st_mtime_ns
    assert run_piece(piece, options, tokenizer, str(out)) == row
    assert path.stat().st_mtime_ns == when
    assert list(load_ledger(str(out))) == [piece_identity(row.fingerprint, row.spans)]
    path.write_bytes(whole[:-10])
    run_piece(piece, options, tokenizer, str(out))
    assert path.read_bytes() == whole
    (out / "ledger" / f"{row.key}.json").write_text("{half a li")
    assert run_piece(piece, options, tokenizer, str(out)) == row


def test_an_error_leaves_neither_shard_nor_ledger_row(tmp_path, corpus, tokenizer, monkeypatch):
    ((piece,), _) = pieces_of(corpus)
    from pmlm_core.corpus import shard_job

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_job.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        run_piece(piece, ShardOptions(max_length=32), tokenizer, str(tmp_path / "out"))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_full_disk_leaves_no_half_written_shard(tmp_path, corpus, tokenizer):
    """The limit on file sizes stands for the disk's: writing fails, and so does closing, which writes what is left."""
    ((piece,), _) = pieces_of(corpus)
    options = ShardOptions(max_length=32, validation_fraction=0.3)
    entries = run_piece(piece, options, tokenizer, str(tmp_path / "whole")).shards
    assert entries["validation"].bytes < entries["train"].bytes - 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (entries["train"].bytes - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            run_piece(piece, options, tokenizer, str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(jsonl(["more " * 30]))


def _of_equal_length(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"the", b"eht"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [_longer, _of_equal_length])
@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_changes_after_it_was_listed_fails_its_piece(tmp_path, corpus, tokenizer, change, known):
    options, out = ShardOptions(max_length=32, views=1), tmp_path / "out"
    if known:  # the same bytes were read before
        change(Path(corpus))
        ((piece,), _) = pieces_of(corpus)
        run_piece(piece, options, tokenizer, str(out))
    ((piece,), _) = pieces_of(corpus)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if known:
        os.utime(corpus, (1, 1))
    else:
        change(Path(corpus))
    with pytest.raises(DataError, match=rf"{corpus} has changed since this run listed it"):
        run_piece(piece, options, tokenizer, str(out))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    ((piece,), _) = pieces_of(corpus)
    assert run_piece(piece, options, tokenizer, str(out)).counts["documents"] >= 239


def test_copies_that_ray_unpacks_on_every_node_may_differ_in_age(tmp_path, tokenizer):
    copy = write(tmp_path / "_ray_pkg_0123456789abcdef" / "a.jsonl", jsonl(["fine " * 50]))
    ((piece,), _) = pieces_of(copy)
    os.utime(copy, (1, 1))  # as another node has it
    row = run_piece(piece, ShardOptions(max_length=32), tokenizer, str(tmp_path / "out"))
    assert row.counts["documents"] == 1
    ((again,), _) = pieces_of(copy)
    assert row.describes(again)
    _longer(Path(copy))
    with pytest.raises(DataError, match="has changed since"):
        run_piece(piece, ShardOptions(max_length=32), tokenizer, str(tmp_path / "out"))


def test_a_change_between_the_digest_and_the_text_does_not_bear_the_digests_name(
    tmp_path, corpus, tokenizer, monkeypatch
):
    from pmlm_core.corpus import shard_job

    ((piece,), _) = pieces_of(corpus)
    digest_of = shard_job.piece_digest

    def then_change(piece):
        digest = digest_of(piece)
        _longer(Path(corpus))
        return digest

    monkeypatch.setattr(shard_job, "piece_digest", then_change)
    with pytest.raises(DataError, match="has changed since"):
        run_piece(piece, ShardOptions(max_length=32), tokenizer, str(tmp_path / "out"))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_strict_names_file_row_and_reason_even_where_the_work_was_done_before(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", jsonl(["fine " * 50]) + b'{"wrong": 1}\n')
    ((piece,), fmt) = pieces_of(path)
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{path}, row 2: .*no field 'text'"):
            run_piece(piece, ShardOptions(fmt), tokenizer, str(tmp_path / "out"), strict=True)
        run_piece(piece, ShardOptions(fmt), tokenizer, str(tmp_path / "out"))


def test_a_piece_without_any_text_is_finished_all_the_same(tmp_path, tokenizer):
    ((piece,), fmt) = pieces_of(write(tmp_path / "a.jsonl", b"broken\n"))
    row = run_piece(piece, ShardOptions(fmt), tokenizer, str(tmp_path / "out"))
    assert row.shards == {}
    assert row.rejects["counts"] == {"invalid_json": 1}
    assert json.loads((tmp_path / "out/ledger" / f"{row.key}.json").read_text())["key"] == row.key


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_file_that_may_not_be_read_is_set_aside_until_it_may(tmp_path, sample_texts, tokenizer, monkeypatch, name):
    path = str(tmp_path / name)
    write_parquet(Path(path), list(sample_texts)) if name == "a.parquet" else write(Path(path), jsonl(sample_texts))
    out = str(tmp_path / "out")

    class Barred(pa.fs.LocalFileSystem):
        """Root may read everything, so permissions cannot be taken away for real."""

        def open_input_file(self, path):
            raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(storage.pafs, "LocalFileSystem", Barred)
        pieces, fmt = pieces_of(path, piece_bytes=20_000)
        rows = [run_piece(piece, ShardOptions(fmt, max_length=32), tokenizer, out) for piece in pieces]
        assert [row.rejects["counts"] for row in rows] == [{"unreadable": 1}]
        assert next(iter(rejected_items(rows, lambda key: None)))["file"] == path
        with pytest.raises(DataError, match=rf"{path}: the file may not be read"):
            run_piece(pieces[0], ShardOptions(fmt, max_length=32), tokenizer, out, strict=True)
    row = load_row(out, rows[0].key)
    assert row is not None
    assert not is_finished(out, row)
    pieces, fmt = pieces_of(path)
    row = run_piece(pieces[0], ShardOptions(fmt, max_length=32), tokenizer, out)
    assert (row.counts["documents"], row.rejects["counts"]) == (len(sample_texts), {})


def test_memory_stays_bounded_on_lines_of_200_megabytes(tmp_path, sample_tokenizer_dir):
    script = """
        import gzip, resource, sys, zstandard
        from pathlib import Path
        from pmlm_core.corpus.shard_job import ShardOptions, run_piece
        from pmlm_core.corpus.tokenizer import TextTokenizer
        from tests.corpus.corpus_makers import pieces_of, write
        folder, tokenizer = Path(sys.argv[1]), TextTokenizer.load(sys.argv[2])

        def run(path):
            pieces, fmt = pieces_of(path, "text_lines", max_document_bytes=8 << 20)
            return run_piece(pieces[0], ShardOptions(fmt, max_length=32, views=1), tokenizer, str(folder / "out"))

        run(write(folder / "small.txt", b"a little text to begin with\\n" * 100))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        openers = {"a.txt": open, "a.txt.gz": lambda p, m: gzip.open(p, m, 1), "a.txt.zst": zstandard.open}
        for name in openers:
            with openers[name](folder / name, "wb") as file:
                file.write(b"before\\n")
                for _ in range(292):
                    file.write(b"some words " * (1 << 16))
                file.write(b"\\nafter\\n")
            row = run(str(folder / name))
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            assert row.counts["documents"] == 2 and row.rejects["counts"] == {"too_long": 1}, row
            assert row.counts["input_bytes"] > 200e6 and row.rejects["kept"][0]["row"] == 2, row
            assert grown < 48, f"{name}: memory grew by {grown} MiB"
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), sample_tokenizer_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr


# --- what is held out -------------------------------------------------------------------------------------------------


def test_held_out_parts_join_to_the_text_and_come_near_the_fraction(sample_texts):
    book = "\n\n".join(sample_texts * 60)
    held_out = HeldOut(0.3, seed=1)
    parts = list(held_out.parts(book + "the end"))
    assert "".join(part for _, part in parts) == book + "the end"
    assert all(a != b for (a, _), (b, _) in pairwise(parts))
    share = sum(len(part) for split, part in parts if split == "validation") / len(book)
    assert 0.1 < share < 0.5
    assert all(part.endswith("\n") for _, part in parts[:-1])


def test_short_documents_are_held_out_as_wholes_by_content_and_seed():
    texts = [f"document {i}" for i in range(4000)]
    first = [list(HeldOut(0.1, 0).parts(text)) for text in texts]
    assert all(len(parts) == 1 and parts[0][1] == text for parts, text in zip(first, texts, strict=True))
    chosen = [parts[0][0] == "validation" for parts in first]
    assert 0.08 < np.mean(chosen) < 0.12
    assert [list(HeldOut(0.1, 0).parts(text)) for text in texts] == first
    other = [next(HeldOut(0.1, 1).parts(text))[0] == "validation" for text in texts]
    assert np.mean(np.array(chosen) & np.array(other)) < 0.02


def test_nothing_is_held_out_at_zero_and_text_without_white_space_is_cut_too():
    text = "x" * (5 * SECTION_CHARACTERS)
    assert list(HeldOut(0.0, 0).parts(text)) == [("train", text)]
    assert "".join(part for _, part in HeldOut(0.5, 0).parts(text)) == text


def test_documents_of_which_the_tokenizer_makes_nothing_are_told_of(tmp_path, sample_texts, tokenizer):
    path = write(tmp_path / "a.jsonl", jsonl([sample_texts[0], "\u200b", "\u200b\u200b"]))
    ((piece,), _) = pieces_of(path)
    row = run_piece(piece, ShardOptions(), tokenizer, str(tmp_path / "out"))
    assert row.counts["documents"] == 1
    assert row.counts["text_bytes"] == len(sample_texts[0].encode())
    assert [(each["row"], each["reason"], each["detail"]) for each in row.rejects["kept"]] == [
        (2, "empty_text", "the tokenizer makes no token of it"),
        (3, "empty_text", "the tokenizer makes no token of it"),
    ]
    with pytest.raises(DataError, match=r"a\.jsonl, row 2: .*no token"):
        run_piece(piece, ShardOptions(), tokenizer, str(tmp_path / "strict"), strict=True)


def test_such_a_document_is_told_of_once_however_many_parts_it_is_held_out_in(tmp_path, sample_texts, tokenizer):
    options = ShardOptions(validation_fraction=0.5, seed=3)
    # Sections that differ fall to both splits.
    silent = "".join(part + " " * n for n, part in enumerate(["\u200b" * SECTION_CHARACTERS] * 12))
    assert len(list(HeldOut(0.5, 3).parts(silent))) > 1
    path = write(tmp_path / "a.jsonl", jsonl([silent, sample_texts[0]]))
    ((piece,), _) = pieces_of(path)
    row = run_piece(piece, options, tokenizer, str(tmp_path / "out"))
    assert row.counts["documents"] == 1
    assert row.rejects["counts"] == {"empty_text": 1}
