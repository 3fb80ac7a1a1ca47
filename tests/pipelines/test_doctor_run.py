"""The command on this machine: alone, through the Ray that the tests share, and over two nodes of a cluster."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.doctor import gpus, machine, secrets, tracking
from pipelines.doctor.joining import address_fault
from pipelines.doctor.ray_nodes import lost_nodes
from tests.processes import PMLM

ROOT = Path(__file__).parent.parent.parent


def doctor(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *arguments])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No cluster and no store of the user's."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def test_this_machine_alone_answers_in_seconds_and_starts_no_ray(tmp_path):
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        f"try: main(['doctor', '--paths', {str(tmp_path / 'runs')!r}, '--json', {str(tmp_path / 'd.json')!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'mlflow'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 30  # 1 s where nothing else runs
    assert "next: pmlm doctor" in done.stdout
    told = json.loads((tmp_path / "d.json").read_text())
    assert told["ready"] is True
    assert told["errors"] == 0
    assert told["nodes"]["this machine"]["hostname"] == socket.gethostname()
    names = [check["name"] for check in told["checks"]]
    assert names == ["nodes", "versions", "limits", "environment", "GPUs", "capacity", "paths", "MLflow"]
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_long_failure_keeps_its_cause_and_names_that_lead_nowhere_have_advice_of_their_own(capsys):
    """`.invalid` is reserved: no DNS knows a name below it."""
    assert doctor("--tracking_uri", "http://mlflow.invalid:5000", "--timeout", "60") == 1
    said = capsys.readouterr().out
    assert re.search(r"cannot be used: MlflowException: .* \.\.\. .*[Nn]ame", said)
    assert "The name leads to no address here" in said
    assert "Start the server" not in said
    # In a process of its own: this one may have joined a Ray already.
    line, environment = ["doctor", "--tracking_uri", "none"], {**os.environ, "RAY_ADDRESS": "ray.invalid:6379"}
    done = subprocess.run(
        [sys.executable, "-c", PMLM, *line], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "The name leads to no address here" in done.stdout


def test_a_command_that_cannot_run_ends_with_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = f"pretrain --config recipes/pretrain/mini.yaml --data_dir {tmp_path}/none --output_dir {tmp_path}/out"
    assert doctor("--", *command.split()) == 1
    out, err = capsys.readouterr()
    assert f"error: paths: {tmp_path}/none (pretrain data_dir) does not exist" in out
    assert "not ready: 1 error" in err


def test_warnings_fail_only_when_strict(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    assert doctor() == 0
    assert "ready, with care: 1 warning" in capsys.readouterr().out
    assert doctor("--strict") == 1


def test_a_recipe_that_wants_gpus_is_told_on_a_machine_without(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    if gpus.driver_version(Path("/proc/driver/nvidia/version")):
        pytest.skip("this machine has a GPU")
    assert doctor("--recipe", "recipes/pretrain/base.yaml") == 1
    assert "64 workers need 64 GPUs, and there are 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no connection to 127.0.0.1:1"), ("http://127.0.0.1:8265", "for `ray job submit`")],
)
def test_a_cluster_that_is_away_is_a_finding(address, said, capsys, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests' Ray may be there, and would be asked
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert doctor() == 1
    assert said in capsys.readouterr().out
    assert doctor("--cluster", "false") == 0


def test_an_address_that_ray_knows_itself_is_left_to_it():
    assert address_fault("auto", 1.0) is None


@pytest.mark.slow
def test_something_that_listens_and_is_no_ray_is_a_finding_in_time(capsys, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        assert doctor("--timeout", "5") == 1
    assert "no answer within 10 s" in capsys.readouterr().out
    assert time.monotonic() - start < 60


def test_through_the_ray_that_is_there(ray_session, tmp_path, capsys):
    report = tmp_path / "d.json"
    assert doctor("--cluster", "--paths", str(tmp_path / "runs"), "--json", str(report)) == 0, capsys.readouterr().out
    told = json.loads(report.read_text())
    names = {check["name"] for check in told["checks"]}
    assert names >= {"cluster", "nodes", "versions", "token", "names", "connections", "clocks", "paths"}
    (node,) = told["nodes"].values()
    assert node["code"] == machine.code_fingerprint()
    assert not (tmp_path / "runs").exists()
    import ray

    assert ray.is_initialized()


def test_a_node_that_went_unforeseen_is_told_until_it_is_back():
    here = {"Alive": True, "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "a", "DeathReason": 0}
    gone = {**here, "Alive": False, "DeathReason": 2, "DeathReasonMessage": "health check failed"}
    other = {**gone, "NodeManagerAddress": "10.0.0.2", "NodeManagerHostname": "b"}
    assert lost_nodes([here, gone, other]) == {"b (10.0.0.2)": "health check failed"}
    assert not lost_nodes([here, {**other, "DeathReason": 4}])  # the autoscaler's own doing


@pytest.mark.slow
def test_a_ray_of_its_own_is_started_and_ended(tmp_path):
    command = [sys.executable, "-m", "pipelines.cli", "doctor", "--cluster", "--paths", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 node answered" in done.stdout


@pytest.mark.slow
def test_two_nodes_of_a_cluster(tmp_path):
    from tests.ray_nodes import cluster_of

    with cluster_of(0) as cluster:
        lame = cluster.add_node(num_cpus=1, env_vars={"NUMBA_DISABLE_JIT": "1"})
        environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pipelines.cli", "doctor", "--paths", str(tmp_path / "runs")]
        done = subprocess.run(
            [*command, "--json", str(tmp_path / "d.json")], env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 1, done.stdout + done.stderr
        told = json.loads((tmp_path / "d.json").read_text())
        checks = {check["name"]: check for check in told["checks"]}
        assert len(told["nodes"]) == 2
        assert checks["connections"]["summary"] == "2 tried between nodes"
        (finding,) = checks["environment"]["findings"]
        assert "NUMBA_DISABLE_JIT" in finding["what"]
        assert finding["where"].endswith(lame.node_id[:6])
        asked = os.environ.get("RAY_AUTH_MODE") == "token"  # a Ray of its own has turned it on in this process
        assert checks["token"]["severity"] == ("ok" if asked else "warning")
        assert checks["paths"]["severity"] == "ok"
        assert not (tmp_path / "runs").exists()


def test_a_store_that_is_away_is_told_without_its_password(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush-too")
    report = tmp_path / "d.json"
    uri = "http://me:hush%21@127.0.0.1:1/?token=hush-query"
    assert doctor("--tracking_uri", uri, "--json", str(report)) == 1
    shown = "".join(capsys.readouterr()) + report.read_text()
    assert "***@127.0.0.1:1" in shown
    assert "hush" not in shown


def test_secrets_that_a_message_quotes_are_taken_out(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0k3n")
    text = 'login of "me" with "p@ss" (p%40ss) failed, header Bearer t0k3n'
    shown = secrets.cleaned(text, "postgresql://me:p%40ss@db/mlflow")
    assert shown == 'login of "me" with "***" (***) failed, header Bearer ***'


def test_a_store_that_is_there_is_read_and_one_that_may_not_be_made_is_found(tmp_path):
    from pipelines.tracking.store import open_store

    uri = f"sqlite:///{tmp_path}/there.db"
    open_store(uri, "some")
    assert tracking.look(uri, 60.0).state == "there"
    (tmp_path / "file").write_text("")
    assert tracking.look(f"sqlite:///{tmp_path}/file/below.db", 5.0).state == "failed"
    assert tracking.look("none", 5.0).state == "off"


def test_memory_is_that_of_the_container(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 500 kB\nMemAvailable: 800 kB\n")
    assert machine._memory(tmp_path / "meminfo", tmp_path) == (1000 * 1024, 800 * 1024)
    (tmp_path / "memory.max").write_text("409600\n")
    (tmp_path / "memory.current").write_text("102400\n")
    assert machine._memory(tmp_path / "meminfo", tmp_path) == (409600, 307200)


def test_gpus_are_asked_in_a_process_of_its_own(tmp_path, monkeypatch):
    seen = gpus.look_at_gpus(ask=True, in_ray=False, timeout=120.0)
    assert seen.failure is None
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpus.look_at_gpus(ask=True, in_ray=False, timeout=60.0).failure
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    assert gpus.look_at_gpus(ask=True, in_ray=False, timeout=0.5).failure == "no end within 0 s"


def test_the_version_of_the_driver(tmp_path):
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC 12\n")
    assert gpus.driver_version(file) == "550.54.15"
    assert gpus.driver_version(tmp_path / "none") == ""
