"""One process at a time in a run's folder; a killed one keeps nobody out."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.lock import FILE_NAME, locked
from pmlm_core.errors import ConfigError

HOLDER = (
    "import sys, time\nfrom pipelines.lock import locked\n"
    "with locked(sys.argv[1], 'pmlm pretrain'):\n    time.sleep(60)"
)


def test_another_process_is_named_and_a_killed_one_forgotten(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)])
    try:
        deadline = time.monotonic() + 30
        while not ((tmp_path / FILE_NAME).exists() and (tmp_path / FILE_NAME).read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with (
            pytest.raises(ConfigError, match=rf"in use by pmlm pretrain \(process {holder.pid} on"),
            locked(tmp_path, ""),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path, "pmlm pretrain"):
        pass
    with locked(tmp_path, "pmlm sync"):
        pass
