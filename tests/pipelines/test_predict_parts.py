"""Cutting files into pieces: put together again they are the rows that reading the whole file gives."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.predict import scan as scan_module
from pipelines.predict.config import PredictConfig
from pipelines.predict.inputs import Input, Piece, list_inputs
from pipelines.predict.read import read_part
from pipelines.predict.scan import Columns, Scan
from pmlm_core.errors import DataError, NotThereError
from pmlm_core.tasks.base import BadRow
from pmlm_core.tasks.rows import read_rows
from pmlm_core.tasks.squad import question_rows

COLUMNS = Columns({"id": ("id",), "text": ("sentence", "text")}, frozenset({"text"}), "classification")
LIMIT = 1 << 20


def scanned(paths: list[Path], piece_rows: int, columns: Columns = COLUMNS, squad: bool = False) -> Scan:
    found, _ = list_inputs([str(path) for path in paths], squad)
    scan = Scan(piece_rows, LIMIT, columns)
    for each in found:
        scan.add(each)
    scan.finish()
    return scan


def rows_of(piece: Piece, inputs: list[Input]) -> list[Any]:
    """File, number and fields of each row, or the reason against it."""
    rows = [row for part in piece.parts for row in read_part(inputs[part.input], part, LIMIT)]
    return [(r.file, r.row, r.reason) if isinstance(r, BadRow) else (r.file, r.number, dict(r.fields)) for r in rows]


def whole(path: Path) -> list[Any]:
    rows = read_rows([str(path)], ["text"], ["id"])
    return [(r.file, r.row, r.reason) if isinstance(r, BadRow) else (r.file, r.number, dict(r.fields)) for r in rows]


def assert_cut_right(paths: list[Path], piece_rows: int) -> None:
    scan = scanned(paths, piece_rows)
    found = [rows_of(piece, scan.inputs) for piece in scan.pieces]
    assert [row for rows in found for row in rows] == [row for path in sorted(paths) for row in whole(path)]
    assert [len(rows) for rows in found] == [piece.rows for piece in scan.pieces]
    assert all(piece.rows == piece_rows for piece in scan.pieces[:-1])
    assert sum(each.rows for each in scan.inputs) == sum(map(len, found))


TEXTS = ["one", "zwei\tdrei".replace("\t", " "), "ünïcode  line", "", 'a "quoted" word', "x" * 3000, "last"]


def packed(path: Path, data: bytes) -> Path:
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(data))
    return path


@pytest.mark.parametrize("piece_rows", [1, 3, 100])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_text_form_in_pieces_is_the_whole(tmp_path: Path, piece_rows: int, packing: str, end: str):
    lines = [json.dumps({"id": n, "text": text}, ensure_ascii=False) for n, text in enumerate(TEXTS)]
    lines[2:2] = ["", "not json", "  ", "[1, 2]"]
    jsonl = packed(tmp_path / f"b.jsonl{packing}", ("\ufeff" + end.join(lines)).encode())
    table = ["id\ttext", *(f"{n}\t{text}" for n, text in enumerate(TEXTS)), "", "too\tmany\tfields"]
    tsv = packed(tmp_path / f"a.tsv{packing}", (end.join(table) + end).encode())
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=end).writerows([("id", "text"), *enumerate(TEXTS), (1, f"two{end}lines")])
    comma = packed(tmp_path / f"c.csv{packing}", buffer.getvalue().encode())
    assert_cut_right([jsonl, tsv, comma], piece_rows)


cells = st.text(st.sampled_from('ab",\n \r'), max_size=6)


@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=12), piece_rows=st.integers(1, 5), raw=st.booleans())
@settings(max_examples=150)
def test_csv_is_cut_between_records_whatever_is_quoted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], piece_rows: int, raw: bool
):
    """Written well, or (raw) with quotation marks and line breaks where they do not belong."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        file.write("id,text\n")
        if raw:
            file.writelines(f"{a},{b}\n" for a, b in rows)
        else:
            csv.writer(file).writerows(rows)
    try:
        expected = whole(path)
    except csv.Error:
        return
    if expected:
        assert_cut_right([path], piece_rows)


@pytest.mark.parametrize("piece_rows", [1, 4, 100])
def test_parquet_and_squad_in_pieces(tmp_path: Path, piece_rows: int):
    table = pa.table({"id": list(range(11)), "other": list(range(11)), "text": [f"row {n}" for n in range(11)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    assert_cut_right([tmp_path / "a.parquet"], piece_rows)
    qas = [[{"id": f"q{p}{n}", "question": "who?"} for n in range(p)] for p in range(4)]
    paragraphs = [{"context": f"passage {p}", "qas": each} for p, each in enumerate(qas)]
    path = packed(tmp_path / "q.json.gz", json.dumps({"data": [{"paragraphs": paragraphs}]}).encode())
    columns = Columns({"id": ("id",), "question": ("question",), "context": ("context",)}, frozenset(), "qa")
    scan = scanned([path], piece_rows, columns, squad=True)
    found = [row for piece in scan.pieces for row in rows_of(piece, scan.inputs)]
    assert found == [(row.file, row.number, dict(row.fields)) for row in question_rows(str(path))]
    assert len(found) == 6


def test_a_worker_reads_only_its_bytes_of_plain_text(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(10)))
    scan = scanned([path], 4)
    parts = [part for piece in scan.pieces for part in piece.parts]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == path.stat().st_size
    content = path.read_bytes()
    path.write_bytes(b"#" * parts[1].start + content[parts[1].start : parts[1].stop])
    assert [fields["text"] for _, _, fields in rows_of(scan.pieces[1], scan.inputs)] == [
        f"row {n}" for n in range(4, 8)
    ]


def test_pieces_of_a_packed_file_grow_so_that_it_is_not_unpacked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scan_module, "_NEAR", 0)
    monkeypatch.setattr(scan_module, "_REREAD", 8)
    lines = [json.dumps({"text": f"row {n:04d}"}) + "\n" for n in range(2000)]
    path = packed(tmp_path / "a.jsonl.zst", "".join(lines).encode())
    scan = scanned([path], 2)
    found = [row for piece in scan.pieces for row in rows_of(piece, scan.inputs)]
    assert found == whole(path)
    assert scan.pieces[0].rows == 2
    assert sum(part.first + part.count for piece in scan.pieces for part in piece.parts) < 2000 * 12
    assert all(piece.rows == 2 for piece in scanned([packed(tmp_path / "b.jsonl", "".join(lines).encode())], 2).pieces)


def test_a_packed_file_that_ends_early_keeps_its_rows(tmp_path: Path):
    lines = [json.dumps({"text": f"row {n} {n * 7919 % 104729}"}) + "\n" for n in range(50_000)]
    data = gzip.compress("".join(lines).encode())
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data[: len(data) * 2 // 3])
    scan = scanned([path], 4096)
    found = [row for piece in scan.pieces for row in rows_of(piece, scan.inputs)]
    (entry,) = scan.broken
    assert (entry["reason"], entry["row"]) == ("truncated file", len(found) + 1)
    assert 10_000 < len(found) < 50_000
    assert [fields["text"] for _, _, fields in found] == [json.loads(line)["text"] for line in lines[: len(found)]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"body": "x"}\n', r"no column 'sentence' or 'text' \(--text_column names another\).*'body'"),
        ("a.tsv", "id\tbody\n1\tx\n", "columns found: 'id', 'body'"),
        ("a.csv", "id,body\n1,x\n", "columns found: 'id', 'body'"),
        ("a.jsonl", '[{"text": "x"}]\n', "is one JSON array"),
        ("a.jsonl", "hello\nthere\n", "row 1: not JSON.*no row at the beginning"),
        ("a.tsv", "\ufeffid\ttext\n1\tx\n".encode("utf-16-le"), "is UTF-16"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
        ("a.txt", "hello\n", "its name tells no known form"),
        ("a.jsonl.bz2", "hello\n", "files packed as .bz2 are not read; unpack it"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, content: str | bytes, message: str):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        scanned([path], 10)


def test_what_is_there_is_not_listed_before_the_command_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "config.json").write_text("{}")

    def there(*inputs: Path) -> None:
        PredictConfig(model=str(tmp_path), inputs=[str(each) for each in inputs], output_dir="out").check_there()

    there(tmp_path / "*.jsonl")
    with pytest.raises(NotThereError, match="nowhere"):
        there(tmp_path, tmp_path / "nowhere")
    monkeypatch.setattr("os.scandir", lambda path: pytest.fail(f"{path} is listed"))
    there(tmp_path, tmp_path / "a.jsonl")


def test_a_row_over_the_limit_is_a_bad_row(tmp_path: Path):
    long = "x" * (LIMIT + 1)
    (tmp_path / "a.tsv").write_text(f"text\nshort\n{long}\nend\n")
    (tmp_path / "b.csv").write_text(f"text\nshort\n{long}\nend\n")
    scan = scanned([tmp_path / "a.tsv", tmp_path / "b.csv"], 100)
    ((_, *rows), other) = (rows_of(scan.pieces[0], scan.inputs)[:3], rows_of(scan.pieces[0], scan.inputs)[3:])
    assert [row[1:] for row in rows] == [(3, "row too long"), (4, {"text": "end"})]
    assert [row[1:] for row in other] == [(2, {"text": "short"}), (3, "row too long"), (4, {"text": "end"})]
