"""A real S3 server on this machine, for as long as a test module needs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pmlm_core import storage


def put_folder(source: str | Path, uri: str) -> None:
    """Copy the files of a folder, not those in folders below it, to a store."""
    for file in Path(source).iterdir():
        if file.is_file():
            storage.copy_file(file, storage.join(uri, file.name))


@contextmanager
def bucket_on_a_server(name: str) -> Iterator[str]:
    """An empty bucket `s3://name`; the environment points at its server as a user's would."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=name)
        yield f"s3://{name}"
    server.stop()
