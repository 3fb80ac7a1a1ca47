"""How many trials run at a time, as nodes come and go. `test_sweep_nodes.py` has real ones."""

from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.tune.search import Searcher

from pipelines.sweep.config import SweepConfig
from pipelines.sweep.room import InOrder, Limited, at_a_time, leave, share


def config(**options: Any) -> SweepConfig:
    return SweepConfig(**{"benchmark": ["rte"], "model": "m", "data_dir": ["d"], "num_workers": 2, **options})


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the cluster has, to be changed."""
    have: dict[str, float] = {}
    monkeypatch.setattr(ray, "cluster_resources", lambda: have)
    return have


@pytest.mark.parametrize(
    ("have", "options", "expected"),
    [
        ({}, {}, 1),  # of none that fits one waits
        ({"CPU": 9}, {}, 4),
        ({"CPU": 9}, {"max_concurrent_trials": 3}, 3),
        ({"CPU": 9}, {"max_concurrent_trials": 30}, 4),
        ({"CPU": 9}, {"cpus_per_trial": 2}, 2),
        ({"CPU": 64, "GPU": 8}, {"gpus_per_trial": 1.0}, 4),
        ({"CPU": 64}, {"gpus_per_trial": 1.0}, 1),
        ({"CPU": 9}, {"num_workers": 1}, 0),
        ({"CPU": 9}, {"num_workers": 1, "max_concurrent_trials": 3}, 3),
    ],
)
def test_as_many_as_fit_and_were_asked_for(nodes, have, options, expected):
    nodes.update(have)
    assert at_a_time(config(**options)) == expected


def test_what_a_benchmark_that_has_ended_leaves_is_for_the_others(nodes):
    nodes["CPU"] = 16
    share(["rte", "cola", "mrpc"])
    counts = [at_a_time(config())]
    for ended in ("cola", "rte", "mrpc"):
        leave(ended)
        counts.append(at_a_time(config()))
    assert counts == [2, 4, 8, 8]


class Anything(Searcher):
    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"name": trial_id}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass


def test_a_searcher_proposes_more_when_nodes_join_and_fewer_when_they_leave(nodes):
    nodes["CPU"] = 2
    search = cloudpickle.loads(cloudpickle.dumps(Limited(Anything(metric="score", mode="max"), config())))
    assert search.suggest("a")
    assert search.suggest("b") is None
    nodes["CPU"] = 6
    assert search.suggest("b")
    assert search.suggest("c")
    assert search.suggest("d") is None
    nodes["CPU"] = 4
    search.on_trial_complete("a")
    assert search.suggest("d") is None
    search.on_trial_complete("b")
    assert search.suggest("d")


def test_drawn_points_heed_the_nodes_too(nodes):
    from ray import tune
    from ray.tune.experiment import Experiment

    nodes["CPU"] = 2
    search = InOrder(config(seed=3))
    tune.register_trainable("nothing", lambda config: None)
    search.add_configurations([Experiment("x", "nothing", config={"a": tune.grid_search([1, 2, 3, 4])})])
    assert search.next_trial()
    assert search.next_trial() is None
    nodes["CPU"] = 4
    second = search.next_trial()
    assert second
    assert search.next_trial() is None
    nodes["CPU"] = 2
    search.on_trial_complete(second.trial_id)
    assert search.next_trial() is None
