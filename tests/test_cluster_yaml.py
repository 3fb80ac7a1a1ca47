"""cluster.yaml has the form that the installed Ray's `ray up` accepts, and keeps its doors shut."""

import json
import re
from pathlib import Path

import jsonschema
import ray.autoscaler
import yaml

ROOT = Path(__file__).parent.parent


def _cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_form_is_rays():
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(_cluster(), schema)


def test_every_start_command_turns_token_authentication_on():
    cluster = _cluster()
    starts = [c for c in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"] if "ray start" in c]
    assert starts, "no node would start Ray"
    assert all("RAY_AUTH_MODE=token" in command for command in starts)


def test_dashboard_is_not_open_to_the_world():
    assert any("--dashboard-host=127.0.0.1" in command for command in _cluster()["head_start_ray_commands"])


def _training_commands() -> list[str]:
    """The README's commands that pre-train on a cluster, each in one line."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if "pmlm pretrain" in line and "--data_dir s3://" in line]


def test_runs_lie_where_every_node_sees_them_or_are_uploaded_from_the_only_one():
    cluster = _cluster()
    mounted = [c.split()[-1] for c in cluster["initialization_commands"] if "mount -t nfs4" in c]
    commands = _training_commands()
    assert len(commands) == 2
    for command in commands:
        output = re.search(r"--output_dir (\S+)", command)[1]
        if any(output.startswith(f"{folder}/") for folder in mounted):
            continue
        assert "--upload_dir s3://" in command
        wanted = json.loads(re.search(r"--entrypoint-resources '(.*?)'", command)[1])
        offering = [t for t in cluster["available_node_types"].values() if wanted.items() <= t["resources"].items()]
        assert len(offering) == 1, "the job would start on another node than its workers"
        assert offering[0]["resources"]["GPU"]


def test_every_node_may_use_the_bucket():
    roles = [node["node_config"].get("IamInstanceProfile") for node in _cluster()["available_node_types"].values()]
    assert roles[0]
    assert all(role == roles[0] for role in roles)


def test_nodes_install_the_tested_versions():
    assert any("--constraint constraints.txt" in command for command in _cluster()["setup_commands"])
