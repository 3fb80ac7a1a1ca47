"""Tasks by name: known ones, options, recipes, and what importing costs."""

import pickle
import subprocess
import sys

import pytest

from pmlm_core.errors import ConfigError
from pmlm_core.tasks.registry import TASKS, get_task

# The paper's table of fine-tuning: batch, learning rate, warm-up, decay, epochs, smoothing, lengths, beams, penalty.
PAPER = {
    "squad1.1": (32, 2e-5, 0.1, 0.01, 4, 0.0, 384, 0, 1, 0.0),
    "squad2.0": (32, 2e-5, 0.1, 0.01, 4, 0.0, 384, 0, 1, 0.0),
    "cnn_dailymail": (64, 7e-5, 0.02, 0.01, 14, 0.1, 608, 160, 5, 0.7),
    "xsum": (64, 7e-5, 0.02, 0.01, 14, 0.1, 720, 48, 5, 0.6),
    "squad_qg": (48, 2e-5, 0.1, 0.01, 16, 0.1, 464, 48, 8, 1.3),
    "squad_qg_reversed": (48, 2e-5, 0.1, 0.01, 16, 0.1, 464, 48, 8, 1.3),
}


def made(name):
    return get_task(name, labels=["a", "b"]) if name == "classification" else get_task(name)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_whole(name):
    task = made(name)
    assert task.name == name
    assert set(task.labelled) <= set(task.splits)
    assert bool(task.labels) == (task.kind == "classification")
    copy = pickle.loads(pickle.dumps(task))  # it travels to workers
    assert (copy.name, copy.splits, copy.recipe) == (task.name, task.splits, task.recipe)
    if name != "ax":
        assert task.train_split == "train"
        assert task.dev_split.startswith("dev")
    if task.kind == "generation":
        assert task.recipe.max_target_length > 0


@pytest.mark.parametrize("name", PAPER)
def test_recipes_are_the_paper_s(name):
    r = get_task(name).recipe
    assert PAPER[name] == (
        r.batch_size, r.learning_rate, r.warmup_ratio, r.weight_decay, r.num_train_epochs, r.label_smoothing,
        r.max_length, r.max_target_length, r.num_beams, r.length_penalty,
    )  # fmt: skip
    assert r.doc_stride == (128 if name.startswith("squad") and "qg" not in name else 0)


def test_glue_s_recipe_lies_on_the_paper_s_grid():
    r = get_task("rte").recipe
    assert r.batch_size in (16, 32)
    assert r.learning_rate in (5e-6, 1e-5, 1.5e-5, 2e-5, 3e-5)
    assert r.warmup_ratio in (0.1, 0.2)
    assert r.weight_decay in (0.01, 0.1)
    assert r.num_train_epochs in (10, 15)
    assert r.max_length == 512


def test_metrics_that_choose():
    expected = {"cola": "matthews", "stsb": "pearson", "mrpc": "accuracy", "qqp": "accuracy", "squad2.0": "f1"}
    expected |= {"squad_qg": "bleu4", "xsum": "rougeLsum"}
    assert {name: get_task(name).metric for name in expected} == expected


def test_unknown_names_and_options():
    with pytest.raises(ConfigError, match=r"task 'rtee' is not known; did you mean 'rte'\? tasks are cola, sst2"):
        get_task("rtee")
    with pytest.raises(ConfigError, match="task 'rte' has no option 'label_column'; it has none"):
        get_task("rte", label_column="x")
    with pytest.raises(ConfigError, match="it has train_file, validation_file, test_file, id_column"):
        get_task("seq2seq", labels=["a"])
    assert get_task("rte", label_column=None, data_dir="x").name == "rte"


def test_importing_is_light():
    code = "import sys, pmlm_core.tasks.registry; print([m for m in sys.modules if '.' not in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pyarrow" in done.stdout
    for heavy in ("torch", "transformers", "sklearn", "scipy", "pandas", "nltk", "ray", "mlflow", "huggingface_hub"):
        assert f"'{heavy}'" not in done.stdout
