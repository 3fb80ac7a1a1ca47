"""Every recipe is a valid configuration of every stage it names, and agrees with itself from stage to stage."""

import importlib
from pathlib import Path

import pytest
import yaml

from pipelines.cli import COMMANDS
from pipelines.finetune.config import RECIPE as RECIPE_OPTIONS
from pipelines.options import parse
from pipelines.sweep.course import OPTIONS as SWEEP_OPTIONS
from pmlm_core.tasks.registry import OPTIONS, TASKS
from tune_spaces.registry import get_benchmark

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def configs(path: Path) -> dict:
    found = {}
    for name in yaml.safe_load(path.read_text()):
        command = COMMANDS[name]
        config_class = getattr(importlib.import_module(f"pipelines.{name}.config"), command.config_class)
        found[name] = parse(name, config_class, command.summary, ["--config", str(path)], tuple(COMMANDS)).config
    return found


def test_the_promised_recipes_are_there():
    names = {path.stem for path in RECIPES if path.parent.name == "pretrain"}
    assert names >= {"demo", "mini", "small", "medium", "base", "large", "ablation"}


def test_every_benchmark_that_can_be_trained_has_a_recipe_that_leaves_the_papers_options_alone():
    trainable = {name for name in TASKS if name not in OPTIONS and name != "ax"}
    found = {}
    for path in RECIPES:
        if path.parent.name == "finetune":
            (config,) = configs(path).values()
            found[config.task] = path.stem
            assert all(getattr(config, name) is None for name in RECIPE_OPTIONS)
    assert found == {name: name for name in trainable}


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent.name == "pretrain"], ids=lambda p: p.stem)
def test_recipe_is_valid_and_its_stages_fit_together(path):
    stages = configs(path)
    assert stages["preprocess"].tokenizer == stages["tokenizer"].output_dir
    assert stages["pretrain"].data_dir == stages["preprocess"].output_dir
    assert stages["preprocess"].inputs == stages["tokenizer"].inputs


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent.name == "sweep"], ids=lambda p: p.stem)
def test_a_sweep_names_benchmarks_that_are_there_and_their_data(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (config,) = configs(path).values()
    for name in config.benchmark:
        get_benchmark(name, SWEEP_OPTIONS)
        assert config.folder_of(name)


def test_the_demo_sweeps_the_model_it_has_pretrained_on_data_that_is_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    (sweep,) = configs(ROOT / "recipes/sweep/demo.yaml").values()
    pretrain = configs(ROOT / "recipes/pretrain/demo.yaml")["pretrain"]
    assert sweep.model == f"{pretrain.output_dir}/final"
    assert all(any(Path(sweep.folder_of(name)).iterdir()) for name in sweep.benchmark)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_header_gives_command_and_hardware(path):
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert "pmlm " in header
    assert "Hardware:" in header
    assert "Expected:" in header


def test_base_is_the_papers_main_run():
    base = configs(ROOT / "recipes/pretrain/base.yaml")
    pretrain, preprocess = base["pretrain"], base["preprocess"]
    assert (pretrain.batch_size, preprocess.max_length, pretrain.max_steps) == (7680, 512, 500_000)
    assert (pretrain.learning_rate, pretrain.warmup_steps, pretrain.weight_decay) == (6e-4, 24_000, 0.01)
    assert (pretrain.adam_beta1, pretrain.adam_beta2, pretrain.adam_epsilon) == (0.9, 0.98, 1e-6)
    assert pretrain.max_grad_norm is None
    assert (preprocess.mask_prob, pretrain.preset, pretrain.objective) == (0.15, "base", "AE+PAR")


def test_ablation_is_the_papers_comparison_of_objectives():
    ablation = configs(ROOT / "recipes/pretrain/ablation.yaml")
    pretrain, preprocess = ablation["pretrain"], ablation["preprocess"]
    assert (pretrain.batch_size, preprocess.max_length, pretrain.max_steps) == (256, 512, 1_000_000)
    assert (pretrain.learning_rate, pretrain.warmup_steps, pretrain.weight_decay) == (1e-4, 10_000, 0.01)
    assert (pretrain.adam_beta1, pretrain.adam_beta2, pretrain.max_grad_norm) == (0.9, 0.999, 1.0)
    assert pretrain.preset == "base"
