"""Secrets stay out of parameters and records."""

from pathlib import Path

from pipelines.tracking.redact import flatten, redact
from pipelines.tracking.sink import MlflowSink


def test_secrets_never_reach_parameters() -> None:
    assert redact("http://user:p%40ss@host:5000/x") == "http://***@host:5000/x"
    assert redact("s3://bucket/a?X-Amz-Signature=abc&part=1") == "s3://bucket/a?X-Amz-Signature=***&part=1"
    flat = flatten({"inputs": ["https://a:b@h/f", "plain"], "x": {"auth_token": "t"}, "tokenizer": "dir", "n": None})
    assert flat == {
        "inputs": "['https://***@h/f', 'plain']",
        "x.auth_token": "***",
        "tokenizer": "dir",
        "n": "None",
    }


def test_the_record_on_disk_holds_no_password(tmp_path: Path) -> None:
    sink = MlflowSink(
        tmp_path, "http://user:hush@127.0.0.1:9", "e", "r", {"data": "s3://k:hush@b"}, warn=lambda _: None
    )
    assert "hush" not in (tmp_path / "mlflow.json").read_text()
    sink.finish(timeout=0.1)
