"""cluster.yaml has the form that the installed Ray's `ray up` accepts, and keeps its doors shut."""

import json
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


def test_nodes_install_the_tested_versions():
    assert any("--constraint constraints.txt" in command for command in _cluster()["setup_commands"])
