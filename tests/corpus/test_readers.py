"""Every form read right, and everything that is wrong with a file set aside with its row and reason."""

import gzip
import json
import random
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pmlm_core.corpus.readers import Document, read_documents
from pmlm_core.corpus.rejects import REASONS, Reject, RejectLog
from tests.corpus.corpus_makers import jsonl, pieces_of, read, write, write_parquet

TEXTS = ["One fish.", "Zwei Fische, größer.", "三条鱼", 'with "quotes"\nand lines']


def reasons(rejects: list[Reject]) -> list[tuple[int, str]]:
    return [(reject.row, reject.reason) for reject in rejects]


# --- the forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_json_lines(tmp_path, ending):
    assert read(write(tmp_path / f"a.jsonl{ending}", jsonl(TEXTS))) == (TEXTS, [])


def test_json_lines_other_field_blank_lines_and_no_last_newline(tmp_path):
    data = b'{"body": "a b"}\n\n   \r\n{"text": "not this", "body": "c"}'
    assert read(write(tmp_path / "a.jsonl", data), text_field="body") == (["a b", "c"], [])


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_document_a_line(tmp_path, ending):
    data = "\ufeffone line\r\n\nnext größer line\n  \nlast".encode()
    path = write(tmp_path / f"a.txt{ending}", data)
    assert read(path, "text_lines") == (["one line", "next größer line", "last"], [])


def test_blank_line_blocks(tmp_path):
    data = b"\n\nfirst\nstill first\n \t\r\n\nsecond\r\nstill second\n\n\nthird"
    path = write(tmp_path / "a.txt", data)
    assert read(path, "text_blocks") == (["first\nstill first", "second\nstill second", "third"], [])


def test_a_document_a_file(tmp_path):
    write(tmp_path / "a.txt", b"whole\n\nfile\n")
    write(tmp_path / "b.txt.gz", b"other file")
    assert read(str(tmp_path), "text_files") == (["whole\n\nfile", "other file"], [])


WIKITEXT = """ \n = First article = \n \n Its well @-@ known text of 1 @,@ 000 words . \n \n = = A section = = \n
 More , 2 @.@ 5 m .\n \n = Second = \n \n Text with = signs = inside . \n"""


def test_wikitext(tmp_path):
    texts, rejects = read(write(tmp_path / "wiki.tokens", WIKITEXT.encode()))
    assert rejects == []
    assert [text.split("\n")[0] for text in texts] == ["First article", "Second"]
    assert " Its well-known text of 1,000 words . " in texts[0]
    assert "\nA section\n" in texts[0]
    assert "2.5 m" in texts[0]
    assert " Text with = signs = inside . " in texts[1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, kind):
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "text": pa.array(TEXTS).cast(kind)}), tmp_path / "a.parquet")
    assert read(str(tmp_path / "a.parquet")) == (TEXTS, [])


def test_several_gzip_members_and_zstd_frames(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntw") + gzip.compress(b"o\n"))
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress(b"three\nfo") + zstandard.compress(b"ur\n"))
    assert read(str(tmp_path), "text_lines") == (["one", "two", "three", "four"], [])


# --- what is wrong with files ---------------------------------------------------------------------------------------


def test_invalid_utf8_costs_its_row_only(tmp_path):
    texts, rejects = read(write(tmp_path / "a.txt", b"good\nbad \xff here\ngood too\n"), "text_lines")
    assert texts == ["good", "good too"]
    (reject,) = rejects
    assert (reject.row, reject.reason, reject.byte_offset) == (2, "invalid_utf8", 9)
    assert r"\xff" in reject.excerpt


def test_utf16_is_named(tmp_path):
    texts, rejects = read(write(tmp_path / "a.txt", "some text".encode("utf-16")), "text_files")
    assert texts == []
    assert "UTF-16" in rejects[0].detail


def test_nul_characters(tmp_path):
    assert reasons(read(write(tmp_path / "a.txt", b"a\nb\x00c\nd"), "text_lines")[1]) == [(2, "nul_byte")]
    data = b'{"text": "ok"}\n{"text": "a\\u0000b"}\n{"text": "raw\x00"}\n'
    assert reasons(read(write(tmp_path / "a.jsonl", data))[1]) == [(2, "nul_byte"), (3, "nul_byte")]
    write_parquet(tmp_path / "a.parquet", ["fine", "a\x00b"])
    assert reasons(read(str(tmp_path / "a.parquet"))[1]) == [(2, "nul_byte")]


def test_half_a_surrogate_pair_in_json(tmp_path):
    data = b'{"text": "half \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n'
    texts, rejects = read(write(tmp_path / "a.jsonl", data))
    assert texts == ["whole \U0001f600"]
    assert reasons(rejects) == [(1, "invalid_utf8")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.txt.zst", "a.tokens", "a.parquet"])
@pytest.mark.parametrize("data", [b"", b"\n \n\n"])
def test_a_file_without_a_document(tmp_path, name, data):
    if name.endswith("parquet"):
        write_parquet(tmp_path / name, [])
    elif data:
        write(tmp_path / name, data)
    else:
        (tmp_path / name).write_bytes(b"")
    texts, rejects = read(str(tmp_path / name), "text_blocks" if ".txt" in name else "auto")
    assert texts == []
    assert reasons(rejects) == [(0, "empty_file")]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_truncated_file_keeps_what_comes_before(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    lines = [json.dumps({"text": f"{i} " + " ".join(str(i * j * 7919) for j in range(50))}) for i in range(2000)]
    write(path, "\n".join(lines).encode())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    texts, rejects = read(str(path))
    assert len(texts) > 500
    assert [text.split()[0] for text in texts] == [str(i) for i in range(len(texts))]
    assert reasons(rejects) == [(len(texts) + 1, "truncated_file")]
    assert "rows before are kept" in rejects[0].detail


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_what_is_not_compressed_at_all(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(b"plain text under a wrong name\n" * 10)
    texts, rejects = read(str(path), "text_lines")
    assert texts == []
    assert reasons(rejects) == [(1, "corrupt_file")]


def test_damage_in_the_middle_of_zstd(tmp_path):
    path = tmp_path / "a.txt.zst"
    data = zstandard.ZstdCompressor(write_checksum=True).compress(
        b"".join(b"line %d\n" % (i * i) for i in range(90_000))
    )
    half = len(data) // 2
    path.write_bytes(data[:half] + bytes(b ^ 0x5A for b in data[half : half + 64]) + data[half + 64 :])
    texts, rejects = read(str(path), "text_lines")
    assert rejects[-1].reason == "corrupt_file"
    assert len(texts) > 100


def test_json_that_is_not_what_was_asked(tmp_path):
    data = b"""{"text": "good"}
{"body": "no text here"}
{"text": 7}
{"text": null}
["text"]
{"text": "cut off
{"text": "   "}
{"text": "good again"}
"""
    texts, rejects = read(write(tmp_path / "a.jsonl", data + b"[" * 100_000 + b"\n"))
    assert texts == ["good", "good again"]
    assert reasons(rejects) == [
        (2, "missing_field"),
        (3, "not_text"),
        (4, "not_text"),
        (5, "invalid_json"),
        (6, "invalid_json"),
        (7, "empty_text"),
        (9, "invalid_json"),
    ]
    assert rejects[0].detail == "no field 'text'; fields here: body; --text_field says which holds the text"
    assert rejects[0].byte_offset == data.index(b'{"body"')


def test_parquet_of_the_wrong_schema(tmp_path):
    write_parquet(tmp_path / "a.parquet", ["x"], field="body")
    pq.write_table(pa.table({"text": [1, 2], "body": ["x", "y"]}), tmp_path / "b.parquet")
    texts, rejects = read(str(tmp_path))
    assert texts == []
    assert [(r.span, r.row, r.reason) for r in rejects] == [(0, 0, "wrong_schema"), (1, 0, "wrong_schema")]
    assert (
        rejects[0].detail
        == "no column 'text'; columns: id, body; --text_field says which holds the text; rows left out: 1"
    )
    assert (
        rejects[1].detail
        == "column 'text' is int64, not text; columns of text, for --text_field: body; rows left out: 2"
    )


def test_parquet_with_two_columns_of_the_name(tmp_path):
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    texts, rejects = read(str(tmp_path))
    assert texts == []
    assert rejects[0].detail == "2 columns are called 'text'; rename them in the file; rows left out: 1"


def test_a_damaged_page_of_parquet_with_checksums_is_not_read_as_text_and_its_rows_are_counted(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"the cat number {i} sat on the mat" for i in range(400)]
    table = pa.table({"text": texts})
    pq.write_table(table, path, row_group_size=200, compression="none", use_dictionary=False, write_page_checksum=True)
    data = path.read_bytes()
    at = data.index(b"number 150 ")
    path.write_bytes(data[:at] + b"NUMBER" + data[at + 6 :])
    found, rejects = read(str(path))
    assert found == texts[200:]
    assert [r.reason for r in rejects] == ["corrupt_file"]
    assert rejects[0].detail.endswith("rows left out: 200 of 200")


def test_names_of_fields_that_utf8_cannot_hold_are_quoted_in_a_way_that_it_can(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"te\ud800xt": "a", "' + b"k" * 1000 + b'": "b"}\n')
    _, rejects = read(path)
    assert rejects[0].reason == "missing_field"
    assert len(rejects[0].detail.encode()) < 300


def test_a_line_of_heading_marks_takes_no_time(tmp_path):
    line = b" " + b"= " * 100_000 + b"x"
    started = time.process_time()
    texts, _ = read(write(tmp_path / "a.tokens", b" = One = \n" + line + b"\n = = Part = = \n"))
    assert texts == ["One\n" + line.decode() + "\nPart"]
    assert time.process_time() - started < 20  # of cubic time it would take years


def test_parquet_nulls_and_blanks(tmp_path):
    texts, rejects = read(write_parquet(tmp_path / "a.parquet", ["x", None, "", "y"], row_group_size=3))
    assert texts == ["x", "y"]
    assert reasons(rejects) == [(2, "not_text"), (3, "empty_text")]


def test_parquet_that_is_none_or_ends_early(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    path = write_parquet(tmp_path / "b.parquet", ["some text"] * 1000)
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    texts, rejects = read(str(tmp_path))
    assert (texts, [(r.row, r.reason) for r in rejects]) == ([], [(0, "corrupt_file"), (0, "corrupt_file")])
    assert path


def test_a_damaged_row_group_costs_only_itself(tmp_path):
    texts = [f"text number {i} " * 20 for i in range(30)]
    path = tmp_path / "a.parquet"
    table = pa.table({"text": texts})
    pq.write_table(table, path, row_group_size=10, use_dictionary=False, write_page_checksum=False)
    chunk = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start, size = chunk.data_page_offset, chunk.total_compressed_size
    data[start : start + size] = b"\xff" * size
    path.write_bytes(bytes(data))
    kept, rejects = read(str(path))
    assert kept == texts[:10] + texts[20:]
    assert reasons(rejects) == [(11, "corrupt_file")]


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    from pyarrow import fs

    path = write(tmp_path / "a.jsonl", jsonl(TEXTS))
    real = fs.LocalFileSystem.open_input_file

    def refuse(self, name):
        if name == path:
            raise PermissionError(13, f"Permission denied: {name}")
        return real(self, name)

    class Guarded(fs.LocalFileSystem):
        open_input_file = refuse

    # Tests may run as root, whom no file mode keeps out.
    monkeypatch.setattr("pmlm_core.corpus.readers.streams.resolve", lambda uri: (Guarded(), uri))
    assert reasons(read(path)[1]) == [(0, "unreadable")]


@pytest.mark.parametrize("kind", ["text_lines", "text_blocks", "text_files", "jsonl"])
def test_a_document_over_the_limit(tmp_path, kind):
    if kind == "jsonl":
        data = jsonl(["short", "x" * 5000, "short too"])
    else:
        data = b"short\n\n" + b"x" * 5000 + b"\n\nshort too\n"
    texts, rejects = read(write(tmp_path / f"a.{kind}", data), kind, max_document_bytes=1000)
    if kind == "text_files":
        assert (texts, reasons(rejects)) == ([], [(1, "too_long")])
    else:
        assert texts == ["short", "short too"]
        assert reasons(rejects) == [({"jsonl": 2}.get(kind, 3), "too_long")]
        assert "1,000" in rejects[0].detail


def test_a_block_of_short_lines_over_the_limit(tmp_path):
    data = b"fine\n\n" + b"eight by\n" * 200 + b"\nfine too\n"
    texts, rejects = read(write(tmp_path / "a.txt", data), "text_blocks", max_document_bytes=1000)
    assert texts == ["fine", "fine too"]
    assert reasons(rejects) == [(3, "too_long")]


def test_a_parquet_record_over_the_limit(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", ["a", "ö" * 600, "b"])
    assert reasons(read(path, max_document_bytes=1000)[1]) == [(2, "too_long")]


def test_the_log_counts_all_and_keeps_a_few():
    log = RejectLog(keep=2)
    for row in range(5):
        log.add(Reject(0, row, None, "nul_byte", ""))
    log.add(Reject(0, 9, None, "empty_text", ""))
    assert log.counts == {"nul_byte": 5, "empty_text": 1}
    assert [reject.row for reject in log.kept] == [0, 1, 9]
    assert all(REASONS.values())


def test_a_big_row_group_is_not_held_in_memory(tmp_path):
    rng = random.Random(0)
    texts = [rng.randbytes(150_000).hex() for _ in range(150)]  # 45 MB that do not compress below half
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False, write_batch_size=4)
    ((piece,), fmt) = pieces_of(str(path))
    before, most, found = pa.total_allocated_bytes(), 0, 0
    for document in read_documents(piece, fmt):
        found += isinstance(document, Document) and document.text == texts[found]
        most = max(most, pa.total_allocated_bytes() - before)
    assert found == len(texts)
    assert most < 16 << 20
