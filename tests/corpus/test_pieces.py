"""Cutting: pieces hold every document once and whole, whatever their size; equal bytes have equal digests."""

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmlm_core.corpus.ledger import LedgerRow
from pmlm_core.corpus.pieces import piece_digest
from pmlm_core.corpus.readers import ReadProgress, Reject, read_documents
from pmlm_core.corpus.reports import place, rejected_items
from pmlm_core.corpus.shard_job import ShardOptions, run_piece
from pmlm_core.corpus.tokenizer import TextTokenizer
from tests.corpus.corpus_makers import BIG, jsonl, pieces_of, read, write, write_parquet

LINES = st.lists(
    st.sampled_from(["", " ", "a", "word word", "x" * 50, " = Title = ", " = = Part = = ", "ö\r", "\tz"]), max_size=60
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, piece_bytes=st.integers(1, 200), kind=st.sampled_from(["text_lines", "text_blocks", "wikitext"]))
def test_cut_pieces_hold_the_same_documents(tmp_path, lines, piece_bytes, kind):
    path = write(tmp_path / "a.txt", "\n".join(lines).encode())
    whole, _ = read(path, kind)
    cut, rejects = read(path, kind, piece_bytes)
    assert cut == whole
    assert [r for r in rejects if r.reason != "empty_file"] == []


def test_a_big_file_is_cut_near_the_wanted_size(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl([f"document {i} " * 10 for i in range(1000)]))
    pieces, _ = pieces_of(path, piece_bytes=10_000)
    sizes = [span.end - span.start for piece in pieces for span in piece.spans]
    assert len(pieces) == pytest.approx(sum(sizes) / 10_000, abs=2)
    assert max(sizes) < 10_500
    assert [span.start for piece in pieces for span in piece.spans][1:] == [
        span.end for piece in pieces for span in piece.spans
    ][:-1]


def test_a_file_that_grows_keeps_its_earlier_pieces(tmp_path):
    texts = [f"document {i} " * 10 for i in range(1000)]
    path = write(tmp_path / "a.jsonl", jsonl(texts[:800]))
    before = [piece_digest(piece) for piece in pieces_of(path, piece_bytes=10_000)[0]]
    write(tmp_path / "a.jsonl", jsonl(texts))
    after = [piece_digest(piece) for piece in pieces_of(path, piece_bytes=10_000)[0]]
    assert after[: len(before) - 1] == before[:-1]


def test_one_endless_line_is_one_span(tmp_path):
    path = write(tmp_path / "a.txt", b"start\n" + b"x" * 50_000 + b"\nend\n")
    texts, rejects = read(path, "text_lines", piece_bytes=1000)
    assert [len(text) for text in texts] == [5, 50_000, 3]
    assert rejects == []


def test_parquet_is_cut_by_row_groups(tmp_path):
    texts = [f"text {i} " * 30 for i in range(95)]
    path = write_parquet(tmp_path / "a.parquet", texts, row_group_size=10)
    pieces, _ = pieces_of(path, piece_bytes=3000)
    assert len(pieces) > 3
    assert read(path, piece_bytes=3000) == (texts, [])
    assert len({piece_digest(piece) for piece in pieces}) == len(pieces)


def test_small_files_are_grouped_and_an_added_file_moves_few_groups(tmp_path):
    for i in range(300):
        write(tmp_path / f"{i:03d}5.jsonl", jsonl([f"document {i}"]))
    before, _ = pieces_of(str(tmp_path), piece_bytes=1000)
    assert 300 * 40 / 1000 <= len(before) < 60
    known = {piece_digest(piece) for piece in before}
    write(tmp_path / "0500.jsonl", jsonl(["document added"]))
    after, _ = pieces_of(str(tmp_path), piece_bytes=1000)
    assert 1 <= len({piece_digest(piece) for piece in after} - known) < 8


def test_the_digest_is_of_content_not_of_place(tmp_path):
    first = write(tmp_path / "one" / "a.jsonl", jsonl(["same text"]))
    second = write(tmp_path / "two" / "b.jsonl", jsonl(["same text"]))
    other = write(tmp_path / "three" / "a.jsonl", jsonl(["Same text"]))
    digests = [piece_digest(pieces_of(path)[0][0]) for path in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def test_rows_in_reports_are_rows_of_the_file(tmp_path, sample_tokenizer_dir):
    data = jsonl([f"document {i}" for i in range(50)]).splitlines(keepends=True)
    bad = [3, 20, 21, 44]
    for row in bad:
        data[row - 1] = b'{"wrong": 1}\n'
    path = write(tmp_path / "a.jsonl", b"".join(data))
    pieces, fmt = pieces_of(path, piece_bytes=300)
    assert len(pieces) > 4
    tokenizer = TextTokenizer.load(sample_tokenizer_dir)
    out = str(tmp_path / "out")
    rows = [run_piece(piece, ShardOptions(fmt, max_length=16), tokenizer, out) for piece in pieces]
    items = list(rejected_items(rows[::-1], lambda key: None))
    assert sorted(item["row"] for item in items) == bad
    assert {item["file"] for item in items} == {path}
    offsets = [sum(map(len, data[: row - 1])) for row in bad]
    assert sorted(item["byte_offset"] for item in items) == offsets
    sentences = [
        place(piece.spans[found.span], found)
        for piece in pieces
        for found in read_documents(piece, fmt, ReadProgress())
        if isinstance(found, Reject)
    ]
    assert [sentence.split(": ")[0] for sentence in sentences] == [f"{path}, row {row}" for row in bad]


def test_a_moved_file_is_known_and_reported_under_its_new_name(tmp_path, sample_tokenizer_dir):
    tokenizer = TextTokenizer.load(sample_tokenizer_dir)
    first = write(tmp_path / "a.jsonl", jsonl(["some text"]) + b"broken\n")
    out = str(tmp_path / "out")
    pieces, fmt = pieces_of(first)
    before = run_piece(pieces[0], ShardOptions(fmt), tokenizer, out)
    second = str(shutil.move(first, tmp_path / "b.jsonl"))
    pieces, fmt = pieces_of(second, piece_bytes=BIG)
    after = run_piece(pieces[0], ShardOptions(fmt), tokenizer, out)
    assert before.key == after.key
    assert next(iter(rejected_items([after], lambda key: None)))["file"] == second
    assert LedgerRow.from_json((tmp_path / "out" / "ledger" / f"{after.key}.json").read_bytes()) == after


def test_a_row_told_for_the_same_bytes_elsewhere_gives_the_offsets_there(tmp_path, sample_tokenizer_dir):
    tokenizer = TextTokenizer.load(sample_tokenizer_dir)
    block = jsonl(["x" * 80, "y" * 80]) + b"broken\n"
    path = write(tmp_path / "a.jsonl", jsonl(["first " * 40]) + block + block + jsonl(["last " * 40]))
    pieces, fmt = pieces_of(path, piece_bytes=len(block))
    out = str(tmp_path / "out")
    rows = [run_piece(piece, ShardOptions(fmt, max_length=16), tokenizer, out) for piece in pieces]
    kept = [(row.spans[i["span"]]["start"], i["byte_offset"]) for row in rows for i in row.rejects["kept"]]
    data = (tmp_path / "a.jsonl").read_bytes()
    assert [data[at : at + 7] for _, at in kept] == [b"broken\n"] * 2
    assert all(at >= start for start, at in kept)


def test_a_part_of_a_parquet_file_is_known_by_its_columns_names_too(tmp_path):
    """Else a piece that was refused for its schema would stay refused after the column was renamed."""
    texts = [f"text {i} " * 30 for i in range(95)]
    digests = []
    for field in ("content", "text"):
        pieces, _ = pieces_of(write_parquet(tmp_path / f"{field}.parquet", texts, field=field), piece_bytes=3000)
        assert len(pieces) > 3
        digests.append({piece_digest(piece) for piece in pieces})
    assert not digests[0] & digests[1]
