"""The files of deploy/kuberay/ have the form that Kubernetes and KubeRay accept, and keep their doors shut."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
KUBERNETES = ["deploy/kuberay/raycluster.yaml", "deploy/kuberay/rayjob.yaml"]


def _read(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text())


def _cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"] if document["kind"] == "RayCluster" else document["spec"]["rayClusterSpec"]


def _pods(path: str) -> list[dict[str, Any]]:
    cluster = _cluster_of(_read(path))
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def _wrong_for_kubernetes(value: Any, kind: str) -> list[str]:
    """What the Kubernetes interface does not have, or has in another type, in an object of this kind."""
    models = pytest.importorskip("lightkube.models.core_v1")
    meta = pytest.importorskip("lightkube.models.meta_v1")
    msgspec = pytest.importorskip("msgspec")
    try:
        read = msgspec.to_builtins(msgspec.convert(value, getattr(models, kind, None) or getattr(meta, kind)))
    except msgspec.ValidationError as error:
        return [str(error)]
    return _lost(value, read, kind)


def _lost(given: Any, read: Any, where: str) -> list[str]:
    """Fields that were passed over when an object was read."""
    if isinstance(given, dict):
        lost = [f"{where}.{name} is unknown" for name in given if name not in read]
        return lost + [w for name in given if name in read for w in _lost(given[name], read[name], f"{where}.{name}")]
    if isinstance(given, list):
        return [w for one, other in zip(given, read, strict=True) for w in _lost(one, other, f"{where}[]")]
    return []


def _as_kind(_validator: Any, kind: str, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """The schema's word for what KubeRay takes over from Kubernetes."""
    yield from map(jsonschema.ValidationError, _wrong_for_kubernetes(value, kind))


_SCHEMA = _read("tests/data/kuberay-1.6.2.yaml")
_Kuberay = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"kubernetes": _as_kind})


def _wrong_for_kuberay(document: dict[str, Any]) -> list[str]:
    """What KubeRay does not have, or has in another type or among other values, by the path to it."""
    return [f"{each.json_path}: {each.message}" for each in _Kuberay(_SCHEMA).iter_errors(document)]


@pytest.mark.parametrize("path", KUBERNETES)
def test_kubernetes_takes_every_pod(path):
    for pod in _pods(path):
        assert not _wrong_for_kubernetes(pod, "PodTemplateSpec")
    good = {"name": "c", "image": "x"}
    assert _wrong_for_kubernetes({"spec": {"containers": [good], "toleration": []}}, "PodTemplateSpec")
    assert _wrong_for_kubernetes(
        {"spec": {"containers": [good | {"ports": [{"containerPort": "x"}]}]}}, "PodTemplateSpec"
    )
    assert _wrong_for_kubernetes({"spec": {"containers": [{"image": "x"}]}}, "PodTemplateSpec")


@pytest.mark.parametrize("path", KUBERNETES)
def test_kuberay_takes_it(path):
    assert _wrong_for_kuberay(_read(path)) == []
    assert "$.kind: 'RayServe' is not one of ['RayCluster', 'RayJob']" in _wrong_for_kuberay({"kind": "RayServe"})


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema
        schema = [each for word, each in schema.items() if word != "oneOf"]  # which only picks among the fields
    for each in schema if isinstance(schema, list) else []:
        yield from _objects(each)


def test_the_schema_is_one_knows_every_kind_and_lets_no_field_pass_unknown():
    jsonschema.Draft202012Validator.check_schema(_SCHEMA)
    defined = list(_objects(_SCHEMA["$defs"]))
    assert len(defined) > 10
    assert all(each["additionalProperties"] is False for each in defined)
    kinds = set(re.findall(r"kubernetes: (\w+)", (ROOT / "tests/data/kuberay-1.6.2.yaml").read_text()))
    assert "PodTemplateSpec" in kinds
    for kind in kinds - {"Kind"}:  # the word of its head
        assert any(
            "unknown" in wrong for wrong in _wrong_for_kubernetes({"name": "x", "mountPath": "x", "no": 1}, kind)
        )


@pytest.mark.parametrize(
    ("place", "wrong", "told"),
    [
        ("$", {"specs": {}}, "'specs' was unexpected"),
        ("$", {"apiVersion": "ray.io/v1alpha1"}, "'ray.io/v1' was expected"),
        ("$.metadata", {"nam": "x"}, "nam is unknown"),
        ("$.spec", {"ttlSecondsAfterFinish": 600}, "'ttlSecondsAfterFinish' was unexpected"),
        ("$.spec", {"ttlSecondsAfterFinished": "600"}, "'600' is not of type 'integer'"),
        ("$.spec", {"backoffLimit": 3.5}, "3.5 is not of type 'integer'"),
        ("$.spec", {"runtimeEnvYAML": {"env_vars": {}}}, "is not of type 'string'"),
        ("$.spec", {"shutdownAfterJobFinishes": "yes"}, "'yes' is not of type 'boolean'"),
        ("$.spec", {"submissionMode": "HttpMode"}, "'HttpMode' is not one of"),
        ("$.spec", {"submitterPodTemplate": {"spec": {"containers": [{}]}}}, "missing required field `name`"),
        ("$.spec", {"deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}}}, "is not valid under any"),
        ("$.spec.rayClusterSpec", {"workerGroupSpec": []}, "'workerGroupSpec' was unexpected"),
        ("$.spec.rayClusterSpec", {"rayVersion": 2.6}, "2.6 is not of type 'string'"),
        ("$.spec.rayClusterSpec.authOptions", {"secret": "x"}, "'secret' was unexpected"),
        ("$.spec.rayClusterSpec.authOptions", {"mode": "Token"}, "'Token' is not one of"),
        ("$.spec.rayClusterSpec.autoscalerOptions", {"idleTimeoutSeconds": "600"}, "is not of type 'integer'"),
        ("$.spec.rayClusterSpec.autoscalerOptions", {"upscalingMode": "default"}, "'default' is not one of"),
        ("$.spec.rayClusterSpec.autoscalerOptions", {"env": [{"value": "x"}]}, "missing required field `name`"),
        ("$.spec.rayClusterSpec.headGroupSpec", {"replicas": 1}, "'replicas' was unexpected"),
        ("$.spec.rayClusterSpec.headGroupSpec", {"rayStartParams": {"num-cpus": 0}}, "0 is not of type 'string'"),
        ("$.spec.rayClusterSpec.headGroupSpec", {"serviceType": "Cluster"}, "'Cluster' is not one of"),
        ("$.spec.rayClusterSpec.workerGroupSpecs[1]", {"maxReplica": 8}, "'maxReplica' was unexpected"),
        ("$.spec.rayClusterSpec.workerGroupSpecs[1]", {"maxReplicas": 2**31}, "greater than the maximum"),
        ("$.spec.rayClusterSpec.workerGroupSpecs[1]", {"template": {"specs": {}}}, "specs is unknown"),
    ],
)
def test_kuberay_refuses(place, wrong, told):
    job = _read("deploy/kuberay/rayjob.yaml")
    there: Any = job
    for step in re.findall(r"\w+", place):
        there = there[int(step) if step.isdigit() else step]
    there.update(wrong)
    (found,) = _wrong_for_kuberay(job)
    assert found.startswith(place)
    assert told in found


@pytest.mark.parametrize("field", ["groupName", "minReplicas", "maxReplicas", "template"])
def test_kuberay_misses(field):
    cluster = _read("deploy/kuberay/raycluster.yaml")
    del cluster["spec"]["workerGroupSpecs"][0][field]
    assert _wrong_for_kuberay(cluster) == [f"$.spec.workerGroupSpecs[0]: '{field}' is a required property"]


def test_what_is_written_inside_of_strings_is_yaml_and_json():
    job = _read("deploy/kuberay/rayjob.yaml")
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"]) == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "360"}}
    _, gpu = _cluster_of(job)["workerGroupSpecs"]
    assert json.loads(json.loads(gpu["rayStartParams"]["resources"])) == {"train_node": 1}


@pytest.mark.parametrize("path", KUBERNETES)
def test_kubernetes_asks_for_the_token_and_keeps_the_dashboard_inside(path):
    cluster, pods = _cluster_of(_read(path)), _pods(path)
    assert cluster["authOptions"] == {"mode": "token", "secretName": "pmlm-ray-token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert "env" not in container, "secrets come from a secret"
    gpus = [pod["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu") for pod in pods]
    assert gpus == [None, None, "8"]


def test_the_job_on_kubernetes_runs_the_cluster_that_is_described_beside_it_and_a_command_that_exists():
    job, cluster = _read("deploy/kuberay/rayjob.yaml"), _read("deploy/kuberay/raycluster.yaml")
    assert _cluster_of(job) == _cluster_of(cluster)
    from pipelines.inner_command import parse

    words = job["spec"]["entrypoint"].replace("/home/ray/pmlm/", f"{ROOT}/").split()
    stage, request = parse(words, purpose="run", never=())
    assert stage == "pretrain"
    assert request.config.output_dir.startswith("s3://")


def test_the_image_has_the_tested_ray():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned is not None
    assert f"rayproject/ray:{pinned[1]}-" in (ROOT / "deploy/kuberay/Dockerfile").read_text()
    assert _cluster_of(_read("deploy/kuberay/raycluster.yaml"))["rayVersion"] == pinned[1]
