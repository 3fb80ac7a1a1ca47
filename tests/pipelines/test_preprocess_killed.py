"""`pmlm preprocess` ended half-way: the same command then goes on, and the files are those of a run that was not."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.corpus.corpus_makers import jsonl, write
from tests.processes import end


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_kill_9_of_everything_or_sigterm_and_the_same_command_again(how, tmp_path, sample_texts, sample_tokenizer_dir):
    for i in range(12):
        write(tmp_path / "in" / f"big-{i}.jsonl", jsonl([f"{i} {text}" for text in sample_texts * 3]))
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log.txt"

    def start(out: Path) -> "subprocess.Popen[bytes]":
        options = ["--views=1", "--max_length=32", f"--piece_bytes={1 << 16}", "--num_workers=1"]
        options += ["--inputs", str(tmp_path / "in"), f"--tokenizer={sample_tokenizer_dir}", f"--output_dir={out}"]
        command = [sys.executable, "-m", "pipelines.cli", "preprocess", *options]
        with open(log, "wb") as file:
            return subprocess.Popen(command, start_new_session=True, stdout=file, stderr=subprocess.STDOUT)

    process = start(killed)
    ledger = killed / "ledger"
    while process.poll() is None and not (ledger.exists() and len(list(ledger.glob("*.json"))) >= 3):
        time.sleep(0.01)
    assert process.poll() is None, log.read_text()
    end(process, how, log.read_text, seconds=60)
    if how == signal.SIGTERM:
        assert "terminated; the same command goes on" in log.read_text()
        assert "Traceback" not in log.read_text()
    done = len(list(ledger.glob("*.json")))
    assert not (killed / "manifest.json").exists()

    for out in (killed, whole):
        assert start(out).wait() == 0, log.read_text()
        if out == killed:
            pieces, finished = re.search(r"in (\d+) pieces?; finished already: (\d+)", log.read_text()).groups()
            assert done <= int(finished) < int(pieces)
    assert files(killed) == files(whole)


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the lock and what a killed worker left half-written under a temporary name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    paths = [path for path in paths if path.suffix != ".tmp"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
