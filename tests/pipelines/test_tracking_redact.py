"""Secrets stay out of parameters and records."""

from pathlib import Path

import pytest

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


@pytest.mark.parametrize("password", ["hush", "2024/hush", "1234#5hush", "99?hush", "p@1/hush", "20/24,hush", "8080/"])
@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "s3", "redis"])
def test_no_part_of_a_password_is_left_whatever_it_begins_with(scheme: str, password: str) -> None:
    assert (
        redact(f"cannot reach {scheme}://me:{password}@db:5432/x?a=1") == f"cannot reach {scheme}://***@db:5432/x?a=1"
    )


def test_addresses_without_a_password_stay_as_they_are() -> None:
    for address in ("http://host:5000/model@2", "s3://bucket/a@b", "postgresql://db:5432/x", "sqlite:////a:b@c.db"):
        assert redact(address) == address


def test_the_record_on_disk_holds_no_password(tmp_path: Path) -> None:
    sink = MlflowSink(
        tmp_path, "http://user:hush@127.0.0.1:9", "e", "r", {"data": "s3://k:hush@b"}, warn=lambda _: None
    )
    assert "hush" not in (tmp_path / "mlflow.json").read_text()
    sink.finish(timeout=0.1)
