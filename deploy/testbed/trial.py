"""The three-host test bed put to use: `ray up`, preprocessing, pre-training with lost hosts and cut networks, a sweep.

    sudo python deploy/testbed/trial.py [--recipe recipes/pretrain/demo.yaml] [--inputs 'books/*.zst'] [--keep]

The same pre-training runs three times: undisturbed, in a folder that all hosts share; and, as the sweep, in one of the
head's own disk, which the other hosts do not see: with the hosts of its workers cut off from each other for a while
and then one of them from the head until Ray gives it up; and with the host of a worker killed after the first
checkpoint. All must end with the same weights, bit by bit. Everything is torn down again at the end, whatever happened.
`make cluster-test` runs it; it takes about a quarter of an hour on two cores.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hosts

os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported
from ray.job_submission import JobStatus, JobSubmissionClient

HERE = Path(__file__).resolve().parent
CLUSTER = HERE / "cluster.yaml"
HEAD = hosts.HOSTS["pmlm-1"]
SHARED = hosts.ROOT / "shared"
RUNS = hosts.ROOT / "runs"
"""The same path on every host, and on each another disk."""
SSH = [
    "ssh",
    "-q",
    "-i",
    str(hosts.ROOT / "key"),
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
]
CLIENT = {
    **os.environ,
    "PATH": hosts.search_path(),
    "RAY_UP_enable_autoscaler_v2": "0",
    "RAY_API_SERVER_ADDRESS": f"http://{HEAD}:8265",
    "MLFLOW_TRACKING_URI": f"sqlite:///{SHARED}/mlflow.db",
}
PROJECT = HERE.parent.parent
PMLM = (sys.executable, "-m", "pipelines.cli")


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def command(*words: str, timeout: float = 300) -> str:
    """Run a command of the client to its end; its output is shown if it fails."""
    done = subprocess.run(words, env=CLIENT, cwd=PROJECT, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def on_host(name: str, line: str) -> str:
    """What a line of shell prints on a host; nothing if the host is gone."""
    done = subprocess.run(
        [*SSH, "-o", "ConnectTimeout=5", f"root@{hosts.HOSTS[name]}", f"bash -lc '{line}'"],
        capture_output=True,
        text=True,
    )
    return done.stdout


def until(what: str, ready: Callable[[], object], seconds: float, every: float = 2) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: {what} has not happened within {seconds:.0f} s")
        time.sleep(every)


def jobs() -> JobSubmissionClient:
    return JobSubmissionClient(f"http://{HEAD}:8265")


def submit(*words: str) -> str:
    """Start a job by `pmlm submit`; returns its id."""
    told = command(*PMLM, "submit", "--no_wait", "--", *words)
    job = told.rpartition("pmlm submit --logs ")[2].split()[0]
    say(f"job {job}: pmlm {' '.join(words)}")
    return job


def finish(job: str, seconds: float) -> None:
    """Wait for the end of a job, which must be a success."""
    status = None

    def ended() -> bool:
        nonlocal status
        with contextlib.suppress(RuntimeError, OSError):  # the head is busy with a lost node; asked again, it answers
            status = jobs().get_job_status(job)
        return status is not None and status.is_terminal()

    begun = time.monotonic()
    until(f"the end of job {job}", ended, seconds)
    if status != JobStatus.SUCCEEDED:
        raise SystemExit(f"error: job {job} ended as {status}:\n{jobs().get_job_logs(job)[-6000:]}")
    say(f"job {job}: succeeded after {time.monotonic() - begun:.0f} s more")


def hosts_of_workers() -> list[str]:
    """Hosts on which training workers run now, the head last."""
    names = [*list(hosts.HOSTS)[1:], "pmlm-1"]
    return [name for name in names if "RayTrainWorker" in on_host(name, "ps -eo args | grep ^ray::.*RayTrainWorker")]


def victim() -> str:
    """A host, not the head, on which a training worker runs now."""
    found = hosts_of_workers()[0]
    if found == "pmlm-1":
        raise SystemExit("error: no host but the head has a worker, so there is nothing to try")
    return found


def started(folder: Path) -> list[int]:
    """The steps from which the workers of a run have started."""
    events = [json.loads(line) for each in folder.glob("*/events.jsonl") for line in each.read_text().splitlines()]
    return [event["step"] for event in events if event["kind"] == "resumed"]


def three_nodes() -> bool:
    return " 3 local.cluster.node" in on_host("pmlm-1", "ray status")


def cut_off(folder: Path, job: str, limit: float) -> None:
    """Pull cables while a run trains: between its workers for 15 s, then one's own until Ray gives its host up."""
    one, other = hosts_of_workers()
    hosts.cut(one, other)
    reached = max(losses(folder))
    time.sleep(15)
    hosts.heal(one, other)
    until("a step after the cut", lambda: max(losses(folder)) > reached + 5, 120)
    # Who is cut off from the head loses what Ray asks of it there, and may be started again within these seconds.
    if len(started(folder)) != 1 and "pmlm-1" not in (one, other):
        logs = jobs().get_job_logs(job)[-6000:]
        raise SystemExit(f"error: 15 s between {one} and {other} were not waited for: {started(folder)}\n{logs}")
    went_on = f"training went on{', waited for' * (len(started(folder)) == 1)}"
    say(f"{one} and {other} cut off from each other for 15 s at step {reached}: {went_on}")
    one, before = hosts_of_workers()[0], len(started(folder))
    for name in hosts.HOSTS.keys() - {one}:
        hosts.cut(one, name)
    begun = time.monotonic()
    until("other workers", lambda: len(started(folder)) > before, limit)
    say(
        f"{one} cut off from all: {time.monotonic() - begun:.0f} s later other workers went on "
        f"from step {started(folder)[-1]}"
    )
    for name in hosts.HOSTS.keys() - {one}:
        hosts.heal(one, name)


def weights(folder: Path) -> str:
    """SHA-256 of a run's final weights."""
    return hashlib.sha256((folder / "final" / "model.safetensors").read_bytes()).hexdigest()


def losses(folder: Path) -> dict[int, float]:
    """Training loss by step."""
    (journal,) = folder.glob("*/metrics.jsonl")
    lines = (json.loads(line) for line in journal.read_text().splitlines())
    return {line["step"]: line["metrics"]["train/loss"] for line in lines if "train/loss" in line.get("metrics", {})}


def compare(undisturbed: Path, disturbed: Path) -> None:
    """Refuse runs that differ in a weight or in the loss of a step."""
    steps = losses(disturbed)
    if weights(undisturbed) != weights(disturbed) or losses(undisturbed) != steps:
        raise SystemExit(f"error: the two runs differ: weights {weights(undisturbed)} and {weights(disturbed)}")
    say(f"the same weights, and the same losses at all {len(steps)} logged steps (the last: {steps[max(steps)]:.4f})")


def pretrain(folder: Path, recipe: str, *more: str) -> tuple[Path, str]:
    """Start a pre-training; its folder and its job."""
    job = submit(
        "pretrain", "--config", recipe, "--data_dir", f"{SHARED}/blocks", "--output_dir", str(folder),
        "--num_workers", "2", "--max_failures", "3", *more,
    )  # fmt: skip
    return folder, job


def try_everything(given: argparse.Namespace) -> None:
    begun = time.monotonic()
    command("ray", "up", "--yes", "--no-config-cache", str(CLUSTER))
    until("three nodes", three_nodes, 120)
    say(f"ray up: three nodes after {time.monotonic() - begun:.0f} s")

    recipe, inputs = given.recipe, ["--inputs", *given.inputs] if given.inputs else []
    finish(submit("tokenizer", "--config", recipe, *inputs, "--output_dir", f"{SHARED}/tokenizer"), 600)
    blocks = ["--tokenizer", f"{SHARED}/tokenizer", "--output_dir", f"{SHARED}/blocks"]
    finish(submit("preprocess", "--config", recipe, *inputs, *blocks), 1200)

    undisturbed, job = pretrain(SHARED / "undisturbed", recipe, *given.pretrain)
    finish(job, given.limit)
    if "FINISHED" not in (found := command(*PMLM, "submit", "--status", job)):
        raise SystemExit(f"error: the MLflow run of job {job} is not found:\n{found}")

    if not given.no_cut:
        cut, job = pretrain(RUNS / "cut", recipe, *given.pretrain)
        until("the first checkpoint", lambda: any(cut.glob("*/checkpoints/step-*")), given.limit, every=1)
        cut_off(cut, job, given.limit)
        finish(job, given.limit)
        compare(undisturbed, cut)
        until("three nodes again", three_nodes, 300)

    disturbed, job = pretrain(RUNS / "disturbed", recipe, *given.pretrain)
    until("the first checkpoint", lambda: any(disturbed.glob("*/checkpoints/step-*")), given.limit, every=1)
    lost = victim()
    hosts.kill(lost)
    say(f"{lost} killed, at a checkpoint of {sorted(p.name for p in disturbed.glob('*/checkpoints/step-*'))}")
    finish(job, given.limit)
    compare(undisturbed, disturbed)

    if not given.no_sweep:
        model = ["--model", f"{undisturbed}/final", "--output_dir", f"{RUNS}/sweep"]
        finish(submit("sweep", "--config", "recipes/sweep/demo.yaml", *model), 1200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/pretrain/demo.yaml", help="in the project's folder")
    parser.add_argument("--inputs", nargs="*", help="text files, where not the recipe's")
    parser.add_argument("--pretrain", nargs=argparse.REMAINDER, default=[], help="more options of pmlm pretrain")
    parser.add_argument("--limit", type=float, default=1800, help="seconds a pre-training may take")
    parser.add_argument("--no_cut", action="store_true", help="leave out the cut networks")
    parser.add_argument("--no_sweep", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up")
    given = parser.parse_args()
    token = Path.home() / ".ray" / "auth_token"
    if not token.exists():
        token.parent.mkdir(exist_ok=True)
        token.write_text(os.urandom(32).hex())
        token.chmod(0o600)
    try:
        hosts.up()
        try_everything(given)
        say("all is well")
    finally:
        if not given.keep:
            subprocess.run(["ray", "down", "--yes", str(CLUSTER)], env=CLIENT, capture_output=True)
            hosts.down()
            say("hosts removed")


if __name__ == "__main__":
    sys.exit(main())
