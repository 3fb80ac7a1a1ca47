"""Preprocessing on a cluster that loses one node and is given another meanwhile: the files are those of one machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.preprocess.config import PreprocessConfig
from pipelines.preprocess.run import run
from tests.corpus.corpus_makers import jsonl, write
from tests.pipelines.test_preprocess_killed import files
from tests.processes import send, wait_until
from tests.ray_nodes import at_work, cluster_of


def halted(node: Any) -> list[int]:
    """Workers of the node, stopped in the middle of a piece; none if they were between two."""
    pids = at_work(node)
    send(signal.SIGSTOP, pids)
    if at_work(node) == pids:
        return pids
    send(signal.SIGCONT, pids)
    return []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_session")
def test_a_node_lost_and_a_new_one_leave_no_trace(tmp_path: Path, sample_texts: list[str], sample_tokenizer_dir: str):
    for i in range(12):
        write(tmp_path / "in" / f"part-{i}.jsonl", jsonl([f"{i} {text}" for text in sample_texts]))
    inputs, out, alone, log = (tmp_path / name for name in ("in", "out", "alone", "log.txt"))
    options = {"views": 1, "max_length": 32, "piece_bytes": 1 << 16, "tokenizer": sample_tokenizer_dir}
    with cluster_of(2) as cluster:
        words = ["preprocess", f"--inputs={inputs}", f"--output_dir={out}"]
        words += [f"--{name}={value}" for name, value in options.items()]
        with log.open("wb") as file:
            command = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *words],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": cluster.address},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        kept, doomed = cluster.worker_nodes
        wait_until(lambda: list((out / "ledger").glob("*.json")), command, log)
        # Who is at work stops in the middle of a piece, or all would be done before the others are up.
        old = wait_until(lambda: halted(kept), command, log)
        lost = wait_until(lambda: halted(doomed), command, log)
        new = cluster.add_node(num_cpus=1)
        fresh = wait_until(lambda: halted(new), command, log)
        assert not (out / "manifest.json").exists()
        cluster.remove_node(doomed, allow_graceful=False)
        send(signal.SIGKILL, lost)  # a stopped process does not see that its node is gone
        send(signal.SIGCONT, old + fresh)
        assert command.wait(timeout=240) == 0, log.read_text()
    run(PreprocessConfig(inputs=[str(inputs)], output_dir=str(alone), **options))  # type: ignore[arg-type]
    assert files(out) == files(alone)
    assert len(files(out)) > 20
