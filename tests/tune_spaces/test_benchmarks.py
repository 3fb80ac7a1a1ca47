"""Every benchmark: its options are options of `pmlm finetune` and in range, its metric is one the task is scored by."""

import typing
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ray.tune.search.sample import Domain

from pipelines.finetune.config import FinetuneConfig
from pmlm_core.tasks.base import Answer, QaExample, SourceTarget, TextExample
from pmlm_core.tasks.registry import OPTIONS, TASKS, get_task
from tune_spaces import registry
from tune_spaces.base import SEARCHABLE
from tune_spaces.checks import figure_names
from tune_spaces.registry import BENCHMARKS, get_benchmark
from tune_spaces.settle import INTEGERS, NULLABLE, ends, settle_grid, settle_space

FIELDS = {field.name for field in fields(FinetuneConfig)}
TEMPLATE = str(Path(registry.__file__).with_name("template.py"))
ALL = (*BENCHMARKS, TEMPLATE)
TYPES = typing.get_type_hints(FinetuneConfig)


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR's program takes half a minute to start; nothing here needs its figure."""
    monkeypatch.setenv("PATH", "")


def check(benchmark, **options):
    """A configuration of these options is accepted, and each value is of the type that its option has."""
    for name, value in options.items():
        assert type(value) in (*typing.get_args(TYPES[name]), TYPES[name]), (name, value)
    FinetuneConfig(benchmark.task, model="m", data_dir="d", **{**benchmark.options, **options}).validate()


def test_there_is_one_for_every_benchmark_that_is_trained():
    assert set(BENCHMARKS) == {*TASKS, "scitldr"} - {*OPTIONS, "ax"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_file_is_called_as_its_benchmark_and_says_the_command(name):
    module = import_module(f"tune_spaces.{name.replace('.', '_')}")
    assert name == module.BENCHMARK.name
    assert f"\npmlm sweep --benchmark {name} --model CHECKPOINT --data_dir " in module.__doc__.replace("    ", "")


@pytest.mark.parametrize("name", ALL)
def test_spaces_draw_what_finetune_takes(name):
    benchmark = get_benchmark(name, FIELDS)
    space = settle_space(benchmark)
    assert set(space) <= SEARCHABLE & FIELDS
    assert all(isinstance(domain, Domain) for domain in space.values())
    assert set(benchmark.mutable) <= set(space)
    random = np.random.RandomState(0)
    for _ in range(20):
        check(benchmark, **{option: domain.sample(random_state=random) for option, domain in space.items()})
    for option, domain in space.items():
        for end in ends(domain):
            check(benchmark, **{option: end})


@pytest.mark.parametrize("name", ALL)
def test_grids_and_options_are_what_finetune_takes(name):
    benchmark = get_benchmark(name, FIELDS)
    assert set(benchmark.options) <= FIELDS - SEARCHABLE
    grid = settle_grid(benchmark)
    assert set(grid) <= SEARCHABLE & FIELDS
    assert grid == {option: list(values) for option, values in benchmark.paper_grid.items()}
    for option, values in grid.items():
        for value in values:
            check(benchmark, **{option: value})


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "scitldr"])
def test_the_grid_holds_the_recipe(name):
    """What `pmlm finetune` does when nothing is said is one point of the paper's grid."""
    benchmark = get_benchmark(name)
    recipe = get_task(benchmark.task).recipe
    for option, values in benchmark.paper_grid.items():
        assert getattr(recipe, option) in values, option


@pytest.mark.parametrize("name", ALL)
def test_spaces_reach_the_paper_s_values_and_a_small_model_s(name):
    benchmark = get_benchmark(name)
    space = settle_space(benchmark)
    for option in ("learning_rate", "warmup_ratio", "weight_decay"):
        least, most = ends(space[option])
        assert all(least <= value <= most for value in benchmark.paper_grid.get(option, ()))
    assert ends(space["learning_rate"])[1] >= 1e-3


EXAMPLES = {
    "classification": ([TextExample(label, 1, "a", None, label) for label in "01"], {"0": "0", "1": "1"}),
    "regression": ([TextExample("0", 1, "a", "b", 1.0), TextExample("1", 2, "a", "b", 2.0)], {"0": 1.0, "1": 2.0}),
    "question_answering": (
        [QaExample("0", 1, "q", "Ann met Bob.", (("Ann", 0),), False)],
        {"0": Answer("Ann", 0, 1.0, 2.0, ({"text": "Ann", "start": 0, "score": 1.0},))},
    ),
    "generation": ([SourceTarget("0", 1, "s", "a b c d e", ("a b c d e",))], {"0": "a b c d e"}),
}


@pytest.mark.parametrize("name", ALL)
def test_metrics_and_published_figures_are_the_scorer_s(name):
    benchmark = get_benchmark(name)
    labels = {"labels": ["0", "1"]} if benchmark.task == "classification" else {}
    task = get_task(benchmark.task, **labels)
    examples, predictions = EXAMPLES[task.kind]
    figures = set(task.score(examples, predictions))
    assert benchmark.metric in figures
    assert benchmark.metric == task.metric  # by which epochs are chosen
    for published in benchmark.published:
        assert benchmark.metric in published.figures
        assert set(published.figures) <= figures | ({"meteor"} if benchmark.metric == "bleu4" else set())
    # What a file is checked against is what the scorer says, but for figures by which nobody would choose.
    known = set(figure_names(benchmark, name))
    assert figures - {"total"} <= known | {f for f in figures if "Ans_" in f or f.endswith("_thresh")}
    assert known - {"meteor", "f1_macro"} <= figures


def test_which_options_are_whole_numbers_and_which_may_be_none():
    whole = {name for name in SEARCHABLE if int in (TYPES[name], *typing.get_args(TYPES[name]))}
    assert whole == INTEGERS
    for name in SEARCHABLE:
        default = FinetuneConfig.__dataclass_fields__[name].default
        assert (name in NULLABLE) == (default is not None and type(None) in typing.get_args(TYPES[name]))
