"""What the doctor makes of the nodes' reports: each finding once, and nothing where nothing is wrong."""

import sys
from dataclasses import replace

import pytest
from doctor_makers import GB, gpus, machine, node, only, three

from pipelines.doctor import access, capacity, environment, limits, network, tracking, versions
from pipelines.doctor.demands import Job
from pipelines.doctor.pretraining import Weight
from pipelines.doctor.tracking import Store

NODES = [node(1), node(2), node(3)]
ADDRESSES = {each.label: each.address for each in NODES}
RESOLVED = {label: {other: [ADDRESSES[other]] for other in ADDRESSES} for label in ADDRESSES}


def job(workers: int = 2, cpus: int = 4, gpus: float = 0.0, worker: int | None = 2 * GB) -> Job:
    weight = None if worker is None else Weight(worker, 5 * GB)
    return Job("pretrain", workers, cpus, gpus, workers > 1, "/shared/pretrain", weight)


def test_a_cluster_in_order_has_no_findings():
    good = three()
    assert not versions.check(good).findings
    assert not access.check(good, alone=False).findings
    assert not network.check_names(good, ADDRESSES, RESOLVED, gloo=True).findings
    assert not network.check_connections({"node1": {"node2": None}, "node2": {"node1": None}}).findings
    assert not network.check_clocks({"node1": (0.1, 0.002), "node2": (-0.3, 0.002)}).findings
    assert not limits.check(NODES, good).findings
    assert not environment.check(good, [job()], in_ray=True).findings
    assert not capacity.check(NODES, good, [job(6)], joined=True, most=None).findings
    assert not capacity.check_gpus(NODES, good, wanted=False).findings
    assert not tracking.check(Store("http://mlflow:5000", "there"), several=True).findings


def test_another_version_is_named_with_the_usual_one():
    other = {**machine().versions, "torch": "0.9"}
    only(versions.check(three(versions=other)), "error", "torch 0.9, where the others have 1.0")
    lost = {**machine().versions, "numba": "missing"}
    only(versions.check(three(versions=lost)), "error", "numba is not installed")


def test_other_code_of_the_same_version_is_found():
    only(versions.check(three(code="beef", code_at="/old")), "error", "the code of pmlm in /old is not that of")


def test_a_cluster_without_a_token():
    only(access.check(three(token=False), alone=False), "warning", "no token is asked for")
    only(access.check(three(token=None), alone=False), "warning", "does not tell")
    assert not access.check({"a": machine(token=False)}, alone=True).findings


def test_names_that_keep_gloo_from_the_others():
    own = three(own_addresses=["127.0.1.1"])
    only(network.check_names(own, ADDRESSES, RESOLVED, gloo=True), "error", "leads to 127.0.1.1")
    only(network.check_names(own, ADDRESSES, RESOLVED, gloo=False), "warning", "leads to 127.0.1.1")
    (finding,) = network.check_names(own, ADDRESSES, RESOLVED, gloo=True).findings
    assert "GLOO_SOCKET_IFNAME=eth0" in finding.remedy
    lost = three(own_addresses=[])
    only(network.check_names(lost, ADDRESSES, RESOLVED, gloo=True), "error", "does not resolve there")
    told = three(own_addresses=[], environment={"GLOO_SOCKET_IFNAME": "eth0"})
    assert not network.check_names(told, ADDRESSES, RESOLVED, gloo=True).findings
    wrong = three(environment={"GLOO_SOCKET_IFNAME": "ens5"})
    only(network.check_names(wrong, ADDRESSES, RESOLVED, gloo=True), "error", "names ens5, and there are only lo, eth0")


def test_names_of_others_and_loopback_addresses():
    blind = {**RESOLVED, "node2": {**RESOLVED["node2"], "node3": []}}
    only(network.check_names(three(), ADDRESSES, blind, gloo=True), "warning", "the name of node3 does not lead to")
    loop = {**ADDRESSES, "node2": "127.0.0.1"}
    seen = {label: {**found, "node2": ["127.0.0.1"]} for label, found in RESOLVED.items()}
    only(network.check_names(three(), loop, seen, gloo=True), "error", "Ray knows this node as 127.0.0.1")


def test_two_nodes_on_one_machine_need_no_names():
    same = {f"node{i}": machine(1, own_addresses=["127.0.1.1"]) for i in (1, 2)}
    assert not network.check_names(same, ADDRESSES, {}, gloo=True).findings


def test_a_closed_port_and_a_wrong_clock():
    tried = {"node1": {"node2": None}, "node2": {"node1": "No route to host"}}
    only(network.check_connections(tried), "error", "no connection to node1: No route to host")
    only(network.check_clocks({"node1": (0.0, 0.0), "node2": (-7.0, 0.01)}), "warning", "7.0 s behind this one")
    # So long an answer could explain it.
    assert not network.check_clocks({"node2": (2.4, 1.0)}).findings


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        ({"open_files": 1024}, "warning", "only 1,024 files"),
        ({"shm": 64 * 2**20}, "warning", "/dev/shm has 67.1 MB and Ray's object store is 8.0 GB"),
        ({"disk_free": 4 * GB}, "error", "96% full, and Ray stops writing at 95%"),
        ({"disk": 60 * GB, "disk_free": 8 * GB}, "warning", "8.0 GB are free at /tmp/ray"),
    ],
)
def test_limits(change, severity, text):
    only(limits.check(NODES, three(**change)), severity, text)


def test_no_limit_of_open_files_is_a_large_one():
    assert not limits.check(NODES, three(open_files=sys.maxsize)).findings


@pytest.mark.parametrize(
    ("variables", "severity", "text"),
    [
        ({"OMP_THREAD_LIMIT": "2"}, "warning", "keeps a worker from its 4 threads"),
        ({"OMP_PROC_BIND": "true"}, "warning", "may all get the same ones"),
        ({"NUMBA_DISABLE_JIT": "1"}, "error", "hundred times slower"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "warning", "wait for every kernel"),
        ({"PYTHONPATH": "/other"}, "warning", "PYTHONPATH is /other, unlike on the other nodes"),
    ],
)
def test_variables_that_hurt(variables, severity, text):
    only(environment.check(three(environment=variables), [job()], in_ray=True), severity, text)


def test_hidden_gpus_and_other_priorities():
    hidden = {"node2": machine(2, environment={"CUDA_VISIBLE_DEVICES": ""})}
    only(environment.check(hidden, [job(gpus=1)], in_ray=False), "error", "hides the GPUs")
    assert not environment.check(hidden, [job()], in_ray=False).findings
    only(environment.check(three(nice=19), [], in_ray=True), "warning", "have priority 19")


def test_too_few_cpus():
    many = job(workers=7)
    only(capacity.check(NODES, three(), [many], joined=True, most=None), "error", "need 28 CPUs, and there are 24", "")
    lone = capacity.check(NODES, three(), [job(workers=1, cpus=25)], joined=True, most={"CPU": 64})
    assert "1 worker needs 25 CPUs, and there are 24" in lone.findings[0].what
    grown = capacity.check(NODES, three(), [many], joined=True, most={"CPU": 64})
    only(grown, "warning", "may grow to 64", "")
    alone = capacity.check(NODES[:1], {"node1": machine()}, [job(workers=3)], joined=False, most=None)
    only(alone, "warning", "they share them", "")


def test_cpus_that_are_enough_but_not_on_one_node():
    wide = job(workers=4, cpus=6)
    only(
        capacity.check(NODES, three(), [wide], joined=True, most=None), "error", "only 3 of 4 workers of 6 CPUs fit", ""
    )


def test_too_few_gpus_are_an_error_beside_shared_cpus():
    check = capacity.check(NODES[:1], {"node1": machine()}, [job(workers=3, gpus=1)], joined=False, most=None)
    assert [(each.severity, "GPU" in each.what) for each in check.findings] == [("warning", False), ("error", True)]


def test_memory_of_machines():
    heavy = job(workers=6, worker=15 * GB)  # two a node
    only(capacity.check(NODES, three(memory_free=20 * GB), [job(6, worker=10 * GB)], joined=True, most=None),
         "warning", "2 workers take 22.0 GB by formula, and the node has 20.0 GB free now")  # fmt: skip
    only(capacity.check(NODES, three(memory=24 * GB, memory_free=23 * GB), [job(6, worker=12 * GB)], joined=True,
                        most=None), "error", "2 workers take 26.0 GB")  # fmt: skip
    assert len(capacity.check(NODES, three(), [heavy], joined=True, most=None).findings) == 3
    filling = Job("preprocess", 1, 1, 0.0, False, weight=Weight(7 * GB // 2, 0, libraries=0), most=None)  # eight a node
    little = three(memory=27 * GB, memory_free=26 * GB)
    only(capacity.check(NODES, little, [filling], joined=True, most=None), "error", "8 workers take 28.0 GB")
    assert not capacity.check(NODES, little, [replace(filling, most=7)], joined=True, most=None).findings


def test_memory_of_gpus():
    nodes = [node(1, GPU=1), node(2, GPU=1)]
    wanted = job(workers=2, gpus=1, worker=40 * GB)
    fine = {f"node{i}": machine(i, gpus=gpus()) for i in (1, 2)}
    assert not capacity.check(nodes, fine, [wanted], joined=True, most=None).findings
    busy = {**fine, "node2": machine(2, gpus=gpus(free=3 * GB))}
    only(capacity.check(nodes, busy, [wanted], joined=True, most=None), "warning", "H100 has 3.0 GB free now")
    small = {**fine, "node2": machine(2, gpus=gpus(name="T4", memory=16 * GB, free=15 * GB))}
    only(capacity.check(nodes, small, [wanted], joined=True, most=None), "error", "T4 has 16.0 GB")
    alone = job(workers=1, gpus=0.25, worker=18 * GB)
    shared = replace(alone, most=None, cpus=2)
    assert not capacity.check(nodes, fine, [shared], joined=True, most=None).findings
    busy = {**fine, "node2": machine(2, gpus=gpus(free=71 * GB))}
    only(capacity.check(nodes, busy, [shared], joined=True, most=None), "warning", "4 workers take 72.0 GB")
    assert not capacity.check(nodes, busy, [alone], joined=True, most=None).findings
    few = replace(shared, most=3)
    assert not capacity.check(nodes, busy, [few], joined=True, most=None).findings


def test_gpus_that_torch_does_not_see_or_that_differ():
    nodes = [node(i, GPU=1) for i in (1, 2, 3)]
    good = {f"node{i}": machine(i, gpus=gpus()) for i in (1, 2, 3)}
    assert not capacity.check_gpus(nodes, good, wanted=True).findings

    def spoilt(**changes):
        return capacity.check_gpus(nodes, {**good, "node2": machine(2, gpus=gpus(**changes))}, wanted=True)

    only(spoilt(count=0, cuda=""), "error", "torch sees 0 GPUs, and Ray counts 1 (torch is a build without CUDA")
    only(spoilt(failure="CUDA driver version is insufficient"), "error", "asking torch for GPUs failed")
    only(spoilt(name="A100"), "warning", "A100, CUDA 12.8, driver 570.1: not as on the other nodes")


def test_mlflow_stores():
    failed = Store("http://mlflow:5000", "failed", failure="ConnectionError: refused")
    only(tracking.check(failed, several=False), "error", "cannot be used: ConnectionError", "")
    assert "Start the server" in tracking.check(failed, several=False).findings[0].remedy
    nameless = replace(failed, failure='... NameResolutionError("[Errno -2] Name or service not known"))')
    assert "leads to no address here" in tracking.check(nameless, several=False).findings[0].remedy
    strange = replace(failed, failure="403: Invalid Host header - possible DNS rebinding attack detected")
    assert "--allowed-hosts" in tracking.check(strange, several=False).findings[0].remedy
    old = tracking.check(Store("sqlite:///m.db", "failed", True, failure="out-of-date database schema"), several=False)
    assert "mlflow db upgrade" in old.findings[0].remedy
    default = Store("sqlite:////job/mlflow.db", "new", True, by_default=True)
    only(tracking.check(default, several=True), "warning", "is a file in the working directory", "")
    assert not tracking.check(default, several=False).findings
    assert not tracking.check(Store("none", "off"), several=True).findings
