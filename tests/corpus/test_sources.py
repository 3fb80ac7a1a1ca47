"""Naming input: files, folders, globs; what is taken, what is skipped, what is refused."""

from pathlib import Path

import pytest

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.sources import LeftOut, list_sources
from pmlm_core.errors import ConfigError, DataError

AUTO = InputFormat()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "a.jsonl.gz", "deep/er/c.jsonl.zst", "deep/d.parquet", "e.tokens", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "f.jsonl").write_bytes(b"x")
    return tmp_path


def names(inputs: list[str], root: Path, fmt: InputFormat = AUTO) -> list[str]:
    return [str(Path(source.uri).relative_to(root)) for source in list_sources(inputs, fmt)]


def test_folder_is_searched_through_sorted_without_markers(tree):
    skipped: list[LeftOut] = []
    sources = list_sources([str(tree)], AUTO, skipped.append)
    assert [str(Path(s.uri).relative_to(tree)) for s in sources] == [
        "a.jsonl.gz",
        "b.jsonl",
        "deep/d.parquet",
        "deep/er/c.jsonl.zst",
        "e.tokens",
    ]
    assert [(s.kind, s.compression) for s in sources] == [
        ("jsonl", "gzip"),
        ("jsonl", None),
        ("parquet", None),
        ("jsonl", "zstd"),
        ("wikitext", None),
    ]
    assert sorted((Path(each.uri).name, each.reason) for each in skipped) == [
        ("README.md", "unknown_form"),
        ("f.jsonl", "hidden"),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jsonl*", ["a.jsonl.gz", "b.jsonl"]),
        ("**/*.jsonl.zst", ["deep/er/c.jsonl.zst"]),
        ("**/*.jsonl", ["b.jsonl"]),
        ("deep/*", ["deep/d.parquet"]),
        ("deep/**", ["deep/d.parquet", "deep/er/c.jsonl.zst"]),
        ("?.jsonl", ["b.jsonl"]),
        ("[ab].jsonl*", ["a.jsonl.gz", "b.jsonl"]),
        ("[!a].jsonl*", ["b.jsonl"]),
        ("d*/er/*", ["deep/er/c.jsonl.zst"]),
    ],
)
def test_globs(tree, pattern, expected):
    assert names([str(tree / pattern)], tree) == expected


def test_a_glob_may_ask_for_names_that_are_markers_elsewhere(tree):
    (tree / "_part.jsonl").write_bytes(b"x")
    assert names([str(tree / "_*.jsonl")], tree) == ["_part.jsonl"]
    assert names([str(tree / ".hid*" / "*.jsonl")], tree) == [".hidden/f.jsonl"]
    assert names([str(tree / "*.jsonl")], tree) == ["b.jsonl"]


def test_a_file_named_twice_is_read_once(tree):
    assert names([str(tree / "b.jsonl"), str(tree / "*.jsonl"), str(tree / "deep" / ".." / "b.jsonl")], tree) == [
        "b.jsonl"
    ]


def test_a_name_with_glob_characters_is_found_as_it_is(tmp_path):
    (tmp_path / "part[1].jsonl").write_bytes(b"x")
    assert names([str(tmp_path / "part[1].jsonl")], tmp_path) == ["part[1].jsonl"]


def test_relative_paths_become_absolute(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert list_sources(["b.jsonl"], AUTO)[0].uri == str(tree / "b.jsonl")
    assert list_sources(["*.jsonl"], AUTO)[0].uri == str(tree / "b.jsonl")


@pytest.mark.parametrize("missing", ["nothing.jsonl", "no/where/*.jsonl", "*.csv"])
def test_nothing_matched_is_an_error_that_names_the_input(tree, missing):
    with pytest.raises(DataError, match=r"no such file, folder or match"):
        list_sources([str(tree / "b.jsonl"), str(tree / missing)], AUTO)


def test_plain_text_must_be_told_where_a_document_ends(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(b"x")
    with pytest.raises(DataError, match="--input_format text_lines"):
        list_sources([str(tmp_path)], AUTO)
    assert list_sources([str(tmp_path)], InputFormat("text_blocks"))[0].kind == "text_blocks"


def test_plain_text_beside_known_forms_is_left_out_aloud_unless_named(tree):
    (tree / "README.txt").write_bytes(b"x")
    skipped: list[LeftOut] = []
    found = list_sources([str(tree)], AUTO, skipped.append)
    left = {Path(each.uri).name: each for each in skipped}
    assert (left["README.md"].reason, left["README.txt"].reason) == ("unknown_form", "plain_text")
    assert "make it JSON lines to read it with them, or give it by itself with --input_format" in str(
        left["README.txt"]
    )
    assert str(left["README.md"]).endswith("if it is to be read, give it one that does")
    assert len(found) == 5
    for named in (str(tree / "README.txt"), str(tree / "*.txt")):
        with pytest.raises(DataError, match="all input is then read so"):
            list_sources([str(tree / "b.jsonl"), named], AUTO)
    assert "README.txt" in names([str(tree)], tree, InputFormat("text_lines"))


def test_a_form_that_the_name_does_not_tell(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="give --input_format"):
        list_sources([str(tmp_path / "data.bin")], AUTO)
    with pytest.raises(DataError, match=r"none of its files \(1\)"):
        list_sources([str(tmp_path)], AUTO)
    assert list_sources([str(tmp_path / "data.bin")], InputFormat("jsonl"))[0].kind == "jsonl"


def test_compressed_parquet_and_unknown_storage_are_refused(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(DataError, match="unpack"):
        list_sources([str(tmp_path)], AUTO)
    with pytest.raises(ConfigError, match="hdfs"):
        list_sources(["hdfs://host/a.jsonl"], AUTO)


@pytest.mark.parametrize("options", [{"kind": "csv"}, {"text_field": ""}, {"max_document_bytes": 0}])
def test_a_format_that_means_nothing_is_refused(options):
    with pytest.raises(ConfigError):
        InputFormat(**options)
