"""Spaces and grids joined with what a user writes in YAML: every form, and what is said of wrong ones."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray import tune
from ray.tune.search.sample import Categorical, Float, Integer

from pmlm_core.errors import ConfigError
from tune_spaces.base import Benchmark
from tune_spaces.settle import ends, settle_grid, settle_space


def space():
    return {"learning_rate": tune.loguniform(1e-5, 1e-3), "batch_size": tune.choice([16, 32])}


BENCHMARK = Benchmark(
    name="mine",
    task="rte",
    metric="accuracy",
    space=space,
    paper_grid={"learning_rate": (1e-5, 2e-5), "batch_size": (16, 32)},
)


def settled(text):
    return settle_space(BENCHMARK, yaml.safe_load(text))


def test_nothing_said_is_the_benchmark_s_own():
    own = settle_space(BENCHMARK)
    assert list(own) == ["learning_rate", "batch_size"]
    assert ends(own["learning_rate"]) == [1e-5, 1e-3]
    assert settle_grid(BENCHMARK) == {"learning_rate": [1e-5, 2e-5], "batch_size": [16, 32]}


def test_plain_forms_become_domains():
    found = settled("""
        learning_rate: {loguniform: [1e-4, 2.0e-3]}
        batch_size: [8, 16]
        warmup_ratio: {uniform: [0, 0.2]}
        num_train_epochs: {randint: [2, 5]}
        weight_decay: {choice: [0, 0.1]}
        max_grad_norm: [1, null]
    """)
    kinds = {option: type(domain) for option, domain in found.items()}
    assert kinds == {
        "learning_rate": Float,
        "batch_size": Categorical,
        "warmup_ratio": Float,
        "num_train_epochs": Integer,
        "weight_decay": Categorical,
        "max_grad_norm": Categorical,
    }
    # YAML takes 1e-4 for a text.
    assert {option: ends(domain) for option, domain in found.items()} == {
        "learning_rate": [1e-4, 2e-3],
        "batch_size": [8, 16],
        "warmup_ratio": [0.0, 0.2],
        "num_train_epochs": [2, 4],
        "weight_decay": [0.0, 0.1],
        "max_grad_norm": [1.0, None],
    }
    random = np.random.RandomState(1)
    rates = [found["learning_rate"].sample(random_state=random) for _ in range(200)]
    assert all(1e-4 <= rate <= 2e-3 for rate in rates)
    assert 60 < sum(rate < (1e-4 * 2e-3) ** 0.5 for rate in rates) < 140  # half of them below the geometric middle
    assert {found["num_train_epochs"].sample(random_state=random) for _ in range(100)} == {2, 3, 4}


def test_a_number_fixes_and_null_removes():
    found = settled("{batch_size: 64, learning_rate: {uniform: [1.0e-4, 2.0e-4]}}")
    assert found["batch_size"] == 64
    assert ends(64) == [64]
    assert type(settled("{weight_decay: 1e-2}")["weight_decay"]) is float
    assert set(settled("{batch_size: null}")) == {"learning_rate"}
    assert set(settled("{batch_size: null, weight_decay: null}")) == {"learning_rate"}
    with pytest.raises(ConfigError, match="nothing is left to search"):
        settled("{batch_size: null, learning_rate: 1.0e-4}")


def test_a_benchmark_may_write_plain_forms_itself():
    plain = replace(BENCHMARK, space=lambda: {"learning_rate": {"loguniform": [1e-5, 1e-3]}, "batch_size": [16]})
    assert ends(settle_space(plain)["learning_rate"]) == [1e-5, 1e-3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("learning_rat: 1", "^space: 'learning_rat' cannot be searched; did you mean 'learning_rate'"),
        ("max_length: [128, 256]", "'max_length' cannot be searched"),
        ("learning_rate: {loguniforme: [1, 2]}", r"\{loguniforme\} is no domain; did you mean 'loguniform'"),
        ("learning_rate: {}", r"\{nothing\} is no domain"),
        ("learning_rate: {uniform: [1, 2], choice: [1]}", r"\{uniform, choice\} is no domain"),
        ("learning_rate: {loguniform: 1}", "loguniform needs a list, not 1"),
        ("learning_rate: {loguniform: [1]}", "needs two numbers"),
        ("learning_rate: {loguniform: [0, 1]}", "lower end above 0"),
        ("learning_rate: {uniform: [2, 1]}", r"not \[2.0, 1.0\]; write for example learning_rate: \{loguniform"),
        ("learning_rate: {randint: [1, 2]}", "randint draws whole numbers only"),
        ("batch_size: {uniform: [8, 64]}", r"uniform draws fractions.*batch_size: \[16, 32\]"),
        ("batch_size: [16.5]", "16.5 is no whole number"),
        ("learning_rate: fast", "'fast' is no number"),
        ("learning_rate: true", "True is no number"),
        ("learning_rate: [.nan]", "nan is no number"),
        ("learning_rate: []", "no value in the list"),
        ("learning_rate: [1.0e-4, null]", "None is no number"),
        ("max_grad_norm: {uniform: [null, 1]}", "needs two numbers"),
    ],
)
def test_wrong_spaces(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        settled(text)
    assert text.split(":")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (lambda: 1 / 0, "making it failed: ZeroDivisionError"),
        (lambda: [1], "makes list, not a dictionary"),
        (lambda: {"batchsize": [1]}, "benchmark 'mine', space: 'batchsize' .* mean 'batch_size'"),
        (lambda: {"batch_size": tune.uniform(8, 64)}, "draws fractions, .* use tune.choice"),
        (lambda: {"batch_size": tune.grid_search([8, 64])}, "grid_search} is no domain"),
        (lambda: {}, "nothing is left to search"),
    ],
)
def test_wrong_spaces_of_a_benchmark(own, says):
    with pytest.raises(ConfigError, match=says):
        settle_space(replace(BENCHMARK, space=own))


def test_what_a_benchmark_fixes_only_the_user_may_search():
    fixing = replace(BENCHMARK, options={"weight_decay": 0.1})
    assert "weight_decay" in settle_space(fixing, {"weight_decay": [0.0, 0.1]})
    with pytest.raises(ConfigError, match="batch_size stands in options, too"):
        settle_space(replace(BENCHMARK, options={"batch_size": 16}))


def test_grids():
    given_ = yaml.safe_load("{learning_rate: [1e-4, 1.0e-4, 3.0e-4], batch_size: 64, weight_decay: [0]}")
    assert settle_grid(BENCHMARK, given_) == {
        "learning_rate": [1e-4, 3e-4],
        "batch_size": [64],
        "weight_decay": [0.0],
    }
    assert settle_grid(BENCHMARK, {"learning_rate": None}) == {"batch_size": [16, 32]}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"batchsize": 1}, "^grid: 'batchsize' .* did you mean 'batch_size'"),
        ({"learning_rate": {"loguniform": [1, 2]}}, r"grid: learning_rate: a grid has values, not ranges"),
        ({"batch_size": []}, r"no value in the list; write for example batch_size: \[16, 32\]"),
        ({"batch_size": ["many"]}, "'many' is no whole number"),
    ],
)
def test_wrong_grids(overrides, says):
    with pytest.raises(ConfigError, match=says):
        settle_grid(BENCHMARK, overrides)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["loguniform", "uniform", "randint", "choice", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(st.sampled_from(["learning_rate", "num_train_epochs", "max_grad_norm"]), PLAIN)
def test_whatever_yaml_holds_is_settled_or_refused_in_words(option, value):
    overrides = {option: value, "batch_size": [16, 32]}
    for settle in (settle_space, settle_grid):
        with suppress(ConfigError):
            assert "batch_size" in settle(BENCHMARK, overrides)
