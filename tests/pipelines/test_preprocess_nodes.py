"""Preprocessing on a cluster that is given a second node meanwhile: it takes part, and the files are the same."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus.corpus_makers import jsonl, write
from tests.pipelines.test_preprocess_killed import files
from tests.processes import wait_until
from tests.ray_nodes import at_work, cluster_of


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_node_takes_part(tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str):
    for i in range(12):
        write(tmp_path / "in" / f"big-{i}.jsonl", jsonl([f"{i} {text}" for text in sample_texts * 3]))
    log = tmp_path / "log.txt"

    def start(out: str, address: str) -> "subprocess.Popen[bytes]":
        options = ["--views=1", "--max_length=32", f"--piece_bytes={1 << 16}", f"--output_dir={tmp_path / out}"]
        options += ["--inputs", str(tmp_path / "in"), f"--tokenizer={sample_tokenizer_dir}"]
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "preprocess", *options],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": address},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    with cluster_of(1) as cluster:
        (first,) = cluster.worker_nodes
        grown = start("grown", cluster.address)
        old = wait_until(lambda: at_work(first), grown, log)
        # It stops in the middle of a piece, or it would have done all of them before the new node is up.
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        new = cluster.add_node(num_cpus=1)
        wait_until(lambda: at_work(new), grown, log)
        for pid in old:
            os.kill(pid, signal.SIGCONT)
        assert grown.wait(timeout=300) == 0, log.read_text()
    assert start("alone", "").wait(timeout=300) == 0, log.read_text()
    assert files(tmp_path / "grown") == files(tmp_path / "alone")
