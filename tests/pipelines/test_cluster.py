"""Ray in one place: settings reach the workers, and what can never fit is refused instead of waited for."""

import os
import time

import pytest

from pipelines import cluster
from pmlm_core.corpus import shard_cache
from pmlm_core.errors import ConfigError
from tests.processes import below, listening


def test_workers_get_the_memory_settings(ray_session):
    import ray

    @ray.remote(num_cpus=1)
    def environment() -> dict[str, str]:
        return dict(os.environ)

    found = ray.get(environment.remote())
    assert {name: found[name] for name in cluster.worker_environment()} == cluster.worker_environment()


def test_a_ray_of_ours_needs_no_runtime_environment_and_this_process_keeps_its_own(ray_session):
    import ray

    assert not ray.get_runtime_context().runtime_env.get("env_vars")  # or workers started in advance were of no use
    assert not [name for name in cluster._WORKER_ENVIRONMENT if name in os.environ]


def test_a_ray_of_ours_listens_for_this_machine_alone(ray_session):
    import ray

    assert ray.util.get_node_ip_address() == "127.0.0.1"
    found = listening([os.getpid(), *below(os.getpid())])
    assert found
    assert {address[-8:] for address in found} == {"0100007F"}  # 127.0.0.1, in IPv6 too


def test_what_the_user_has_set_wins(monkeypatch):
    name = next(iter(cluster.worker_environment()))
    monkeypatch.setenv(name, "12345")
    assert cluster.worker_environment()[name] == "12345"


def test_workers_keep_fetched_shards_where_the_user_said(monkeypatch):
    for name, value in ((shard_cache.CACHE_VARIABLE, "/big/disk"), (shard_cache.LIMIT_VARIABLE, "200")):
        monkeypatch.delenv(name, raising=False)
        assert name not in cluster.worker_environment()
        monkeypatch.setenv(name, value)
        assert cluster.worker_environment()[name] == value


def test_too_much_is_refused_at_once(ray_session):
    with pytest.raises(ConfigError, match="3 workers need 3 CPUs, Ray has 2; lower num_workers"):
        cluster.require(3, 1, use_gpu=False)
    with pytest.raises(ConfigError, match="1 worker needs 1 GPU, Ray has 0"):
        cluster.require(1, 1, use_gpu=True)
    cluster.require(2, 1, use_gpu=False)


def test_gpus_that_would_lie_idle_are_told_of(ray_session, monkeypatch, capsys):
    import ray

    have = ray.cluster_resources() | {"GPU": 2.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    monkeypatch.setattr(ray, "available_resources", lambda: have)
    cluster.require(1, 1, use_gpu=False)
    assert "Ray has 2 GPUs and this runs on CPUs, much slower; --use_gpu true uses them" in _one_line(capsys)
    cluster.require(1, 1, use_gpu=True)
    cluster.require(1, 1, use_gpu=False, gpus_by="")
    assert "GPUs" not in _one_line(capsys)


def _one_line(capsys) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def test_what_has_to_wait_says_so(ray_session, capsys):
    import ray

    @ray.remote(num_cpus=1)
    class Busy:
        def here(self) -> bool:
            return True

    _until_free(2)
    cluster.require(2, 1, use_gpu=False)
    assert "waiting" not in capsys.readouterr().out
    busy = Busy.remote()
    assert ray.get(busy.here.remote())
    _until_free(1)
    cluster.require(2, 1, use_gpu=False)
    assert "2 workers need 2 CPUs, 1 of Ray's 2 are free; waiting" in capsys.readouterr().out
    ray.kill(busy)


def _until_free(cpus: int) -> None:
    import ray

    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) != cpus:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_more_workers_than_cpus_share_them_with_a_warning(capsys):
    have = cluster.available_cpus()
    assert cluster.cpus_to_start(have) == have
    assert not capsys.readouterr().out
    assert cluster.cpus_to_start(have + 3) == have + 3
    assert "will share them" in capsys.readouterr().out


def test_a_ray_that_was_there_before_is_left_running(ray_session):
    import ray

    with cluster.connected():
        assert ray.is_initialized()
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
        ({"cpu.max": "nonsense\n"}, None),
    ],
)
def test_a_container_is_given_its_share_of_the_machine(tmp_path, files, share):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cluster._container_share(tmp_path) == share
