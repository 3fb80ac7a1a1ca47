"""Storage: local paths and a real S3 server, whole writes, and preprocessing from a bucket into a bucket."""

import gzip
import os
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pmlm_core import storage
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import plan_pieces
from pmlm_core.corpus.shard_job import ShardOptions, run_piece
from pmlm_core.corpus.sources import list_sources
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError
from tests.bucket_server import bucket_on_a_server
from tests.corpus.corpus_makers import jsonl, write


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("texts") as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "some" / "folder")
    return request.getfixturevalue("bucket") + f"/{tmp_path.name}"


def test_what_is_written_is_read(folder):
    where = storage.join(folder, "deep", "a.json")
    assert not storage.exists(where)
    assert storage.size(where) is None
    storage.write_bytes(where, b"one")
    storage.write_bytes(where, b"other")
    assert storage.read_bytes(where) == b"other"
    assert storage.size(where) == 5
    assert storage.exists(storage.join(folder, "deep"))
    assert storage.size(storage.join(folder, "deep")) is None
    assert list(storage.names_in(storage.join(folder, "deep"))) == ["a.json"]
    assert list(storage.names_in(storage.join(folder, "nowhere"))) == []
    with pytest.raises(DataError, match=r"nothing\.json cannot be read"):
        storage.read_bytes(storage.join(folder, "nothing.json"))


def test_publishing_moves_a_finished_file(folder, tmp_path):
    made = tmp_path / "made.tmp"
    made.write_bytes(b"x" * 100_000)
    storage.publish(made, storage.join(folder, "shards", "a.arrow"))
    assert storage.size(storage.join(folder, "shards", "a.arrow")) == 100_000
    assert not made.exists()


def test_lines_are_written_whole_or_not_at_all(folder):
    where = storage.join(folder, "lines.jsonl")

    def broken():
        yield "one"
        raise ValueError("no more")

    storage.write_lines(where, iter(["a", "ö"]))
    with pytest.raises(ValueError, match="no more"):
        storage.write_lines(where, broken())
    assert storage.read_bytes(where) == "a\nö\n".encode()
    assert list(storage.names_in(folder)) == ["lines.jsonl"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    where = str(tmp_path / "a.json")
    storage.write_bytes(where, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"No space left on device: '.*'"):
        storage.write_bytes(where, b"new")
    assert storage.read_bytes(where) == b"old"
    assert list(storage.names_in(str(tmp_path))) == ["a.json"]


def test_addresses():
    assert storage.join("s3://b/x?scheme=http", "y") == "s3://b/x/y?scheme=http"
    assert storage.normalise("s3://b/x/") == "s3://b/x"
    assert storage.normalise("s3://b/x/?scheme=http") == "s3://b/x?scheme=http"
    assert storage.normalise("file:///tmp/x") == "/tmp/x"
    assert storage.join("s3://b/what?", "y") == "s3://b/what?/y"
    assert storage.split_query("s3://b/?.jsonl?endpoint_override=host:90&scheme=http") == (
        "s3://b/?.jsonl",
        "endpoint_override=host:90&scheme=http",
    )
    with pytest.raises(ConfigError, match="ftp"):
        storage.resolve("ftp://host/file")


def test_an_endpoint_in_the_address_itself(bucket, monkeypatch):
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    where = f"{bucket}/query/a.json?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    storage.write_bytes(where, b"found")
    assert storage.read_bytes(where) == b"found"


@pytest.mark.parametrize("pattern", ["part-?.jsonl", "part-[12].jsonl", "pa*-?.json?"])
def test_question_marks_are_wildcards_in_a_bucket_too(bucket, monkeypatch, pattern):
    for name in ("part-1.jsonl", "part-2.jsonl", "part-10.jsonl"):
        storage.write_bytes(f"{bucket}/wild/{name}", b"x")
    expected = [f"{bucket}/wild/part-{i}.jsonl" for i in (1, 2)]
    assert [source.uri for source in list_sources([f"{bucket}/wild/{pattern}"], InputFormat())] == expected
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    query = f"?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    found = list_sources([f"{bucket}/wild/{pattern}{query}"], InputFormat())
    assert [source.uri for source in found] == [uri + query for uri in expected]


def test_a_missing_bucket_is_an_error_that_names_the_input(bucket):
    with pytest.raises(DataError, match="s3://nowhere"):
        list_sources(["s3://nowhere/x/*.jsonl"], InputFormat())


def test_pieces_from_a_bucket_into_a_bucket_are_those_made_locally(
    bucket, tmp_path, sample_texts, sample_tokenizer_dir
):
    tokenizer = TextTokenizer.load(sample_tokenizer_dir)
    storage.write_bytes(f"{bucket}/in/a.jsonl", jsonl(sample_texts[:100]))
    storage.write_bytes(f"{bucket}/in/b.jsonl.gz", gzip.compress(jsonl(sample_texts[100:]), mtime=0))
    write(tmp_path / "in" / "a.jsonl", jsonl(sample_texts[:100]))
    write(tmp_path / "in" / "b.jsonl.gz", jsonl(sample_texts[100:]))
    fmt = InputFormat()
    options = ShardOptions(fmt, max_length=32, views=1)
    results = []
    for inputs, out in (
        (f"{bucket}/in", f"{bucket}/out"),
        (f"{bucket}/in/*.jsonl*", f"{bucket}/out2"),
        (str(tmp_path / "in"), str(tmp_path / "out")),
    ):
        pieces = plan_pieces(list_sources([inputs], fmt), 20_000)
        assert len(pieces) > 2
        results.append([run_piece(piece, options, tokenizer, out) for piece in pieces])
    assert [r.shards for r in results[0]] == [r.shards for r in results[1]] == [r.shards for r in results[2]]
    entry = results[0][0].shards["train"]
    data = storage.read_bytes(f"{bucket}/out/{entry.path}")
    assert data == (tmp_path / "out" / entry.path).read_bytes()
    assert pa.ipc.open_file(data).read_all().num_rows == entry.rows
