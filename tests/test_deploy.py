"""The files of deploy/ (Kubernetes apart) and cluster.yaml have the form that is accepted, and shut doors."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import pytest
import yaml
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

from pipelines.spot_fallback import score
from tests.processes import below, naming

ROOT = Path(__file__).parent.parent
CLUSTERS = ["cluster.yaml", "deploy/gcp.yaml", "deploy/on-premise.yaml"]


def _read(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("path", CLUSTERS)
def test_ray_up_accepts_it(path):
    prepared = prepare_config(_read(path))
    validate_config(prepared)
    assert set(prepared["available_node_types"]) >= set(_read(path).get("available_node_types", {}))
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepared | {"max_worker": 3})


@pytest.mark.parametrize("path", CLUSTERS)
def test_the_token_is_asked_for_the_dashboard_is_not_open_and_versions_are_pinned(path):
    cluster = _read(path)
    starts = [c for key in ("head", "worker") for c in cluster[f"{key}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any("auth_token" in target for target in cluster["file_mounts"])
    assert any("--constraint constraints.txt" in command for command in cluster["setup_commands"])


def test_the_code_is_mounted_and_nothing_else():
    mounts = [_read(path)["file_mounts"] for path in [*CLUSTERS, "deploy/testbed/cluster.yaml"]]
    assert all(each == mounts[0] for each in mounts)
    code = {mine for there, mine in mounts[0].items() if there.startswith("~/pmlm/")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert code == packages | needed | {"constraints.txt", "recipes"}
    assert all((ROOT / name).exists() for name in code)


@pytest.mark.parametrize(
    ("path", "module"), [("cluster.yaml", "boto3"), ("deploy/gcp.yaml", "google-api-python-client")]
)
def test_the_head_can_start_nodes(path, module):
    cluster = _read(path)
    assert any(re.search(rf"pip install .*\b{module}$", command) for command in cluster["head_setup_commands"])
    assert f"pip install --constraint constraints.txt {module}" in (ROOT / path).read_text()


def test_two_lines_are_to_be_edited():
    lines = [line for line in (ROOT / "cluster.yaml").read_text().splitlines() if "EDIT-ME" in line]
    assert len([line for line in lines if not line.startswith("#")]) == 2


@pytest.mark.parametrize("path", CLUSTERS[:2])
def test_head_without_gpu_cpu_nodes_spot_gpu_nodes_and_the_same_on_demand(path):
    nodes = _read(path)["available_node_types"]
    assert nodes["head"]["resources"] == {"CPU": 0}
    assert "GPU" not in nodes["cpu"]["resources"]
    spot, on_demand = nodes["gpu_spot"], nodes["gpu_on_demand"]
    assert spot["resources"] == on_demand["resources"]
    assert spot["resources"]["GPU"]
    kinds = [node["node_config"].get("InstanceType", node["node_config"].get("machineType")) for node in nodes.values()]
    assert kinds[-1] == kinds[-2]
    marks = ["spot" in json.dumps(node["node_config"]).lower() for node in nodes.values()]
    assert marks == [False, True, True, False]
    assert all(node["min_workers"] == 0 for name, node in nodes.items() if name != "head")


def _asked_of_ray(resources: dict[str, float], scorer: Any, *refused: str) -> dict[str, int]:
    """What Ray's autoscaler starts for these demands, after the cloud has refused nodes of some types."""
    types_there = prepare_config(_read("cluster.yaml"))["available_node_types"]
    tracker = NodeProviderAvailabilityTracker()
    for name in refused:
        refusal = NodeLaunchException("InsufficientInstanceCapacity", "no capacity", None)
        tracker.update_node_availability(name, int(time.time()), refusal)
    summary = tracker.summary()
    asked, _ = get_nodes_for(
        types_there, {}, "head", 16, [resources], lambda *words: scorer(*words, node_availability_summary=summary)
    )
    return dict(asked)


def test_spot_comes_first_and_on_demand_where_the_cloud_refused_spot():
    worker = {"CPU": 1, "GPU": 1}
    assert _asked_of_ray(worker, score) == {"gpu_spot": 1}
    assert _asked_of_ray(worker, score, "gpu_spot") == {"gpu_on_demand": 1}
    assert _asked_of_ray(worker, score, "gpu_spot", "gpu_on_demand") == {"gpu_spot": 1}
    assert _asked_of_ray({"CPU": 1}, score) == {"cpu": 1}
    assert _asked_of_ray({"CPU": 1}, score, "cpu") == {"cpu": 1}  # not a GPU node instead
    # What it is for: by itself Ray asks for the refused type again.
    assert _asked_of_ray(worker, _default_utilization_scorer, "gpu_spot") == {"gpu_spot": 1}


def test_ray_s_second_autoscaler_takes_no_note_of_nodes_that_were_refused():
    """Why cluster.yaml asks for the first one; should this fail with a new Ray, the second may have learned it."""
    refused = InstanceUpdateEvent(instance_type="gpu_spot", new_instance_status=Instance.ALLOCATION_FAILED)
    monitor = CloudResourceMonitor()
    monitor.notify([refused])
    assert monitor.get_recoverable_resource_availabilities() == {}


@pytest.mark.parametrize(("path", "cloud"), [("cluster.yaml", "aws"), ("deploy/gcp.yaml", "google")])
def test_every_worker_waits_for_the_cloud_s_notice_once(path, cloud, tmp_path, monkeypatch):
    *_, command = _read(path)["worker_start_ray_commands"]
    assert f"-m pipelines.spot_notice --cloud {cloud}" in command
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nobody = f"--cloud {cloud} --metadata_url http://127.0.0.1:9"
    command = command.replace("/tmp/", f"{tmp_path}/").replace(f"--cloud {cloud}", nobody)
    for _ in range(2):  # `ray up` comes again
        subprocess.run(["bash", "-c", command], check=True, timeout=20)
    log, deadline = tmp_path / "spot_notice.log", time.monotonic() + 60
    try:
        while not (log.is_file() and "metadata cannot be read" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert log.read_text().count(f"waiting for {cloud}'s notice") == 1
    finally:
        for watcher in naming(str(tmp_path / "spot_notice.lock")):
            for pid in (watcher, *below(watcher)):
                os.kill(pid, signal.SIGTERM)


def test_the_head_is_told_who_scores():
    (start,) = (c for c in _read("cluster.yaml")["head_start_ray_commands"] if "ray start" in c)
    named = re.search(r"RAY_AUTOSCALER_UTILIZATION_SCORER=(\S+)\.(\w+)", start)
    assert named is not None
    assert getattr(importlib.import_module(named[1]), named[2]) is score


def test_aws_takes_every_node():
    model = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape

    def wrong(node_config: dict[str, Any]) -> str:
        request = node_config | {"MinCount": 1, "MaxCount": 1}
        return botocore.validate.ParamValidator().validate(request, model).generate_report()

    for name, node in _read("cluster.yaml")["available_node_types"].items():
        assert not wrong(node["node_config"]), name
    assert "Unknown" in wrong({"InstanceMarketOptions": {"Type": "spot"}})
    assert "Invalid type" in wrong({"InstanceType": 5})


def _discovery(name: str) -> dict[str, Any]:
    """Google's description of an interface, from google-api-python-client."""
    spec = find_spec("googleapiclient")
    if spec is None or spec.origin is None:
        pytest.skip("google-api-python-client is not installed")
    path = Path(spec.origin).parent / "discovery_cache" / "documents" / f"{name}.json"
    return json.loads(path.read_text())


def _wrong_for_google(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> list[str]:
    """Fields of a request that the interface does not have, and values of another type or not among those it takes."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if "properties" in schema:
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        known = schema["properties"]
        wrong = [f"{where}.{name} is unknown" for name in value if name not in known]
        inner = ((name, each) for name, each in value.items() if name in known)
        return wrong + [w for n, each in inner for w in _wrong_for_google(each, known[n], schemas, f"{where}.{n}")]
    if schema.get("type") == "array":
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [w for each in value for w in _wrong_for_google(each, schema["items"], schemas, f"{where}[]")]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where} is {value}"]
    kinds = {"string": (str, int), "boolean": bool, "integer": int, "number": (int, float)}
    return [] if isinstance(value, kinds.get(schema.get("type", ""), object)) else [f"{where} is a {type(value)}"]


def test_google_takes_every_node():
    schemas = _discovery("compute.v1")["schemas"]
    for name, node in _read("deploy/gcp.yaml")["available_node_types"].items():
        assert not _wrong_for_google(node["node_config"], schemas["Instance"], schemas, name)
    bad = {"machineTyp": "n2", "disks": [{"boot": "yes"}], "scheduling": {"provisioningModel": "CHEAP"}}
    assert len(_wrong_for_google(bad, schemas["Instance"], schemas, "bad")) == 3
