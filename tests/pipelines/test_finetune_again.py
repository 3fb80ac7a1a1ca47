"""Fine-tuning from what was fine-tuned: which head and which way to decode a checkpoint brings along."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finetuning_data import make_checkpoint, options_for, write_reviews

from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.families import decoding
from pipelines.finetune.job import settle
from pipelines.finetune.rundir import check_scorers
from pipelines.finetune.source import TASK_FILE, brings_head, build_model, keeps_head, open_source
from pipelines.predict.config import PredictConfig
from pipelines.predict.finetuned import open_finetuned
from pmlm_core.corpus.tokenizer import CONFIG_FILE, TextTokenizer
from pmlm_core.errors import ConfigError
from pmlm_core.tasks.base import Task
from pmlm_core.tasks.registry import get_task


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "final", sample_tokenizer_dir)


def task_of(name: str) -> Task:
    told = {"labels": ["no", "yes"]} if name == "classification" else {}
    return get_task(name, **told)


def model_for(task: Task, folder: str, seed: int = 0, **changes: Any) -> Any:
    return build_model(
        task, replace(task.recipe, **changes), open_source(folder), from_scratch=False, seed=seed, dropout=(0.0, 0.0)
    )


def finetuned(task: Task, pretrained: str, folder: Path, seed: int = 7, **changes: Any) -> str:
    """A folder as `pmlm finetune` leaves one, but for training."""
    model_for(task, pretrained, seed, **changes).save_pretrained(folder)
    for file in Path(pretrained).iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    told = {"format_version": 1, "task": task.name, "kind": task.kind, "labels": list(task.labels)}
    told |= {"recipe": dict(vars(replace(task.recipe, **changes))), "task_options": {}, "can_be_unanswerable": False}
    (folder / TASK_FILE).write_text(json.dumps(told))
    return str(folder)


def head(model: Any) -> torch.Tensor:
    return torch.cat([tensor.flatten() for name, tensor in model.state_dict().items() if not name.startswith("pmlm.")])


def body(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("pmlm.")}


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        ("qnli", "rte", False),  # the same labels, which say something else
        ("mnli", "rte", False),
        ("mnli", "stsb", False),
        ("stsb", "mnli", False),
        ("rte", "rte", True),
        ("stsb", "stsb", True),
        ("classification", "classification", True),
        ("squad1.1", "squad2.0", True),
    ],
)
def test_a_head_is_kept_where_it_is_for_the_task_and_else_drawn_from_the_seed(
    tmp_path: Path, pretrained: str, before: str, now: str, kept: bool
):
    folder = finetuned(task_of(before), pretrained, tmp_path / "before")
    task = task_of(now)
    assert brings_head(open_source(folder), task) is kept
    assert keeps_head(open_source(folder), task, from_scratch=False) is kept
    assert not keeps_head(open_source(folder), task, from_scratch=True)
    first, second = (model_for(task, folder, seed) for seed in (1, 2))
    assert torch.equal(head(first), head(second)) is kept
    assert torch.equal(head(first), head(model_for(task, folder, 1)))
    source = body(model_for(task_of(before), folder))
    assert all(torch.equal(tensor, source[name]) for name, tensor in body(first).items())
    size = first(torch.tensor([[0, 7, 2]]))
    if task.kind != "question_answering":
        assert size.logits.shape == (1, max(1, len(task.labels)))


def test_another_head_is_none_of_this_form(pretrained: str):
    assert brings_head(open_source(pretrained), task_of("rte")) is None


def test_a_way_to_decode_is_the_recipes_and_not_the_checkpoints(tmp_path: Path, pretrained: str):
    summaries = finetuned(task_of("xsum"), pretrained, tmp_path / "xsum", min_target_length=5)
    saved = json.loads((tmp_path / "xsum" / "generation_config.json").read_text())
    assert (saved["no_repeat_ngram_size"], saved["min_new_tokens"], saved["early_stopping"]) == (3, 5, "never")
    questions = model_for(task_of("squad_qg"), summaries).generation_config
    assert (questions.no_repeat_ngram_size, questions.min_new_tokens) == (0, 0)
    assert (questions.num_beams, questions.length_penalty, questions.early_stopping) == (8, 1.3, "never")
    greedy = model_for(task_of("squad_qg"), summaries, num_beams=1)
    assert (greedy.generation_config.length_penalty, greedy.generation_config.early_stopping) == (None, None)
    greedy.save_pretrained(tmp_path / "greedy")  # which transformers refuses to do with what is for beams
    assert greedy.generation_config.suppress_tokens


def test_beams_end_when_none_can_win_whoever_asks_for_them(tmp_path: Path, pretrained: str):
    beams = finetuned(task_of("squad_qg"), pretrained, tmp_path / "beams")
    greedy = finetuned(task_of("squad_qg"), pretrained, tmp_path / "greedy", num_beams=1)
    recipe = task_of("squad_qg").recipe
    for folder in (beams, greedy):
        found = open_finetuned(PredictConfig(model=folder, inputs=["x"], output_dir="y", num_beams=4)).generation
        assert (found["early_stopping"], found["length_penalty"]) == ("never", recipe.length_penalty)
        found = open_finetuned(PredictConfig(model=folder, inputs=["x"], output_dir="y", num_beams=1)).generation
        assert (found["early_stopping"], found["length_penalty"]) == (False, 1.0)
    assert decoding(recipe, 8)["early_stopping"] == "never"


@pytest.mark.parametrize("early", [False, None, "never"])
def test_a_saved_length_penalty_of_0_is_one(tmp_path: Path, pretrained: str, early: Any):
    folder = finetuned(task_of("squad_qg"), pretrained, tmp_path / "beams")
    path = Path(folder) / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "length_penalty": 0.0, "early_stopping": early}))
    found = open_finetuned(PredictConfig(model=folder, inputs=["x"], output_dir="y")).generation
    assert (found["length_penalty"], found["early_stopping"]) == (0.0, "never")


def test_truncation_of_the_fine_tuned_tokenizer_is_as_the_recipes(tmp_path: Path, pretrained: str):
    settings = json.loads((Path(pretrained) / CONFIG_FILE).read_text())
    files = TextTokenizer.load(pretrained).files_at(pretrained, model_max_length=77)
    assert json.loads(files[CONFIG_FILE]) == {**settings, "model_max_length": 77}
    older = {name: value for name, value in settings.items() if name != "auto_map"}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(older))
    assert json.loads(TextTokenizer.load(pretrained).files_at(str(tmp_path))[CONFIG_FILE]) == settings
    assert (
        TextTokenizer.load(pretrained).files_at(pretrained)[CONFIG_FILE]
        == (Path(pretrained) / CONFIG_FILE).read_bytes()
    )


def test_seeds_of_other_scorers_are_not_averaged_with_new_ones(tmp_path: Path, pretrained: str):
    options = options_for("classification", pretrained, write_reviews(tmp_path / "reviews"), tmp_path / "out")
    job, _ = settle(FinetuneConfig(**options))
    now = dict(job.task.scorers())
    before = {name: f"{text}, otherwise" for name, text in now.items()}
    other_version = {name: re.sub(r"scikit-learn [\d.]+", "scikit-learn 0.1", text) for name, text in now.items()}
    assert other_version != now
    check_scorers(job, {1: {"scorers": other_version}, 2: None})
    check_scorers(job, {1: {"scorers": before}, 2: {"scorers": before}})  # nothing is added
    with pytest.raises(ConfigError, match=r"1 seed \(1\) had another scorer .*, or remove .*seed-1 to train"):
        check_scorers(job, {1: {"scorers": before}, 2: None})
