"""`pmlm submit` to a real Ray with dashboard and token: jobs run, are followed, found again, stopped."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ray_head import ROOT, Head, ray_head

from pipelines.run_folder import Events, RunDir
from pipelines.submit import follow
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import Record
from pmlm_core.training.checkpoint import all_steps, step_of
from tests import processes
from tests.pipelines.training_without_ray import config_for
from tests.tcp_proxy import proxy_to

PMLM = [sys.executable, "-m", "pipelines.cli", "submit"]
PLAN = ["plan", "--recipe", "recipes/pretrain/base.yaml"]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture(scope="module")
def failing(head, tmp_path_factory) -> "subprocess.Popen[str]":
    """A submission whose job will fail for want of blocks, running beside the first test."""
    folder = tmp_path_factory.mktemp("failing")
    words = ["pretrain", "--preset", "tiny", "--data_dir", str(folder / "none"), "--output_dir", str(folder / "out")]
    return _begin(head, "--", *words)


def _submit(
    head: Head, *words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PMLM, *words], cwd=cwd, env=head.environment() | dict(env or {}), capture_output=True, text=True, timeout=240
    )


def _begin(head: Head, *words: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", processes.PMLM, "submit", *words],
        cwd=ROOT,
        env=head.environment() | dict(env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _id_in(text: str) -> str:
    found = re.search(r"^job (\S+): ", text, re.M)
    assert found, text
    return found[1]


def test_a_job_runs_the_code_that_was_sent_and_is_followed_and_found_again(head, failing, tmp_path):
    for package in ("pipelines", "pmlm_core", "tune_spaces", "recipes"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "pipelines" / "plan" / "run.py").open("a") as file:
        file.write('\nprint("this file was sent")\n')
    done = _submit(head, "--", *PLAN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("this file was sent") == 1
    assert "bottleneck" in done.stdout  # of the table that the command prints
    job = _id_in(done.stdout)
    assert f"job {job} succeeded" in done.stdout

    listed = _submit(head, "--list")
    assert re.search(rf"^{job} +SUCCEEDED .* pmlm plan --recipe", listed.stdout, re.M)
    status = _submit(head, "--status", job)
    assert f"job {job}: SUCCEEDED" in status.stdout
    assert f"tags.ray_job_id = '{job}'" in status.stdout
    printed = _submit(head, "--logs", job, "--no_wait")
    assert printed.stdout.count("this file was sent") == 1


@pytest.mark.slow
def test_a_connection_that_breaks_late_is_made_anew(head, monkeypatch, capsys):
    """Not given up for being old: what counts is how long ago the cluster answered."""
    from ray.job_submission import JobSubmissionClient

    monkeypatch.setattr(follow, "_GIVE_UP", 2.0)
    monkeypatch.setattr(follow, "_ASK_EVERY", 0.5)
    host, port = head.address.removeprefix("http://").split(":")
    program = "import time; [(print('line', i, flush=True), time.sleep(0.5)) for i in range(16)]"
    with proxy_to(host, int(port)) as proxy:
        token = {"Authorization": f"Bearer {head.token}"}
        client = JobSubmissionClient(f"http://127.0.0.1:{proxy.port}", headers=token)
        job = client.submit_job(entrypoint=f'{sys.executable} -c "{program}"')
        cut = threading.Timer(5, proxy.cut)
        cut.start()
        info = follow.follow(client, job)
    assert cut.finished.is_set()
    assert str(info.status) == "SUCCEEDED"
    assert re.findall(r"^line (\d+)$", capsys.readouterr().out, re.M) == [str(i) for i in range(16)]


def test_the_exit_code_is_that_of_the_job_and_its_last_words_are_shown(head, failing):
    said, _ = failing.communicate(timeout=120)
    assert failing.returncode == 2  # what the command line names is not there
    assert re.search(r"^error: \S+/none holds no manifest.json", said, re.M), said
    assert "failed with exit code 2" in said
    assert "the same command goes on" in said
    told = _submit(head, "--status", _id_in(said)).stdout
    assert re.search(r"^  error: \S+/none holds no manifest.json", told, re.M), told


@pytest.mark.slow
def test_an_interrupt_leaves_the_job_running_until_it_is_stopped(head, tmp_path):
    Record("http://127.0.0.1:9", "e", "run").save(tmp_path)  # MLflow is away: the job tries for ten minutes
    process = _begin(head, "--", "sync", "--run_dir", str(tmp_path))
    assert process.stdout is not None
    said = ""
    while "Running entrypoint" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    job = _id_in(said)
    assert process.returncode == 130
    assert f"job {job} goes on without this terminal" in rest
    assert f"pmlm submit --stop {job}" in rest

    assert f"job {job}: RUNNING" in _submit(head, "--status", job).stdout
    stopped = _submit(head, "--stop", job)
    assert f"job {job} is being stopped" in stopped.stdout
    deadline = time.monotonic() + 30
    while f"job {job}: STOPPED" not in (told := _submit(head, "--status", job).stdout):
        assert time.monotonic() < deadline, told
    assert f"pmlm submit -- sync --run_dir {tmp_path}" in told


def test_another_token_or_none_is_refused_in_words(head, tmp_path):
    wrong = _submit(head, "--list", env={"RAY_AUTH_TOKEN": "0" * 64})
    assert wrong.returncode == 1
    assert "does not take the token that is here" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert head.token not in wrong.stderr
    none = _submit(head, "--list", env={"RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)})
    assert none.returncode == 1
    assert "it asks for a token, and none is here" in none.stderr


def test_a_job_that_is_not_there_is_said_so(head):
    done = _submit(head, "--status", "never-was")
    assert done.returncode == 1
    assert "knows no job never-was" in done.stderr


@pytest.mark.slow
def test_a_killed_job_is_submitted_again_goes_on_and_its_run_is_found_under_both_jobs(head, tmp_path):
    recipe, store = ["--config", "recipes/pretrain/demo.yaml"], f"sqlite:///{tmp_path}/mlflow.db"
    blocks, env = str(tmp_path / "blocks"), {"MLFLOW_TRACKING_URI": store}
    for words in (
        ["tokenizer", *recipe, "--output_dir", str(tmp_path / "tokenizer")],
        ["preprocess", *recipe, "--tokenizer", str(tmp_path / "tokenizer"), "--output_dir", blocks],
    ):
        done = _submit(head, "--", *words)
        assert done.returncode == 0, done.stdout

    numbers = ["--max_steps", "400", "--save_steps", "50", "--eval_steps", "400", "--num_workers", "1"]
    words = ["pretrain", *recipe, "--data_dir", blocks, "--output_dir", str(tmp_path / "out"), *numbers]
    process = _begin(head, "--retries", "1", "--", *words, env=env)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "checkpoints/step-00000050" in line and "submitted again" not in said:
            _kill_driver(str(tmp_path / "out"))
    assert process.wait() == 0, said
    assert "lost its process or its node; it is submitted again" in said
    first, second = re.findall(r"^job (\S+): pmlm", said, re.M)
    for job in (first, second):
        told = _submit(head, "--status", job).stdout
        assert re.search(r"FINISHED +tiny-\S+, experiment pmlm-pretrain: run \w{32} in sqlite", told), told
    (record,) = (Record.load(path.parent) for path in (tmp_path / "out").glob("*/mlflow.json"))
    assert record is not None
    assert record.tags["ray_job_ids"] == f"{first} {second}"
    assert record.tags["commit"]


def _kill_driver(output_dir: str) -> None:
    """SIGKILL to the process that Ray started for the job, not to the one that submitted it."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if output_dir in words and "submit" not in words:
            os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.mark.slow
def test_a_job_that_is_stopped_writes_a_checkpoint_of_its_next_step(head, tmp_path, blocks):
    given = {"max_steps": 100_000, "save_steps": 100_000, "eval_rows": 0, "logging_steps": 1, "run_name": "run"}
    options = config_for(blocks, tmp_path, **given)
    process = _begin(head, "--", "pretrain", *(f"--{name}={value}" for name, value in options.items()))
    assert process.stdout is not None
    said = process.stdout.readline()
    while "Running entrypoint" not in said:
        said += process.stdout.readline()
    deadline = time.monotonic() + 120
    while not any(entry.step >= 3 for entry in Journal(tmp_path / "run").entries()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    _submit(head, "--stop", _id_in(said))
    rest, _ = process.communicate(timeout=120)
    assert "terminated; the same command goes on" in rest
    assert "was stopped" in rest
    (left,) = [event["text"] for event in Events(RunDir(tmp_path / "run")).read()[0] if event["kind"] == "leaving"]
    (kept,) = all_steps(tmp_path / "run" / "checkpoints")
    assert step_of(kept.name) == int(left.rpartition(" ")[2]) < 100_000
