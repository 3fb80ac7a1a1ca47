"""Parts of a sweep without Ray: who wins, what names a trial, what is refused before anything starts."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import tune
from ray.tune.search.variant_generator import generate_variants
from sweeping_data import make_sweep

from pipelines.finetune.rundir import check_same, open_record, write_json
from pipelines.run_folder import RunDir
from pipelines.sweep.board import Board, Standing
from pipelines.sweep.choose import finals, leaders, ranked, winner
from pipelines.sweep.config import SweepConfig
from pipelines.sweep.course import courses, in_plain
from pipelines.sweep.plan import describe, trials_of
from pipelines.sweep.population import note_place
from pipelines.sweep.run import dry_run, run
from pipelines.sweep.scorers import check_scorers
from pipelines.sweep.strategies import plan_of
from pipelines.sweep.trials import (
    COMPLETING,
    Ended,
    Point,
    ended_trials,
    job_at,
    point_of,
    read_cost,
    read_ended,
    write_cost,
    write_point,
)
from pipelines.sweep.upload import uploading
from pipelines.tracking.journal import Journal
from pipelines.upload.background import Uploads
from pmlm_core.errors import ConfigError
from pmlm_core.training.checkpoint import folder_of


def ended(rate: float, seed: int, score: float, seconds: float = 1.0) -> Ended:
    return Ended(Path(f"{rate}-{seed}"), Point({"learning_rate": rate}, seed), score, 1, seconds, {})


def test_the_winner_has_the_best_mean_not_the_best_trial():
    lucky = [ended(1e-4, 1, 90.0), ended(1e-4, 2, 70.0)]
    steady = [ended(2e-4, 1, 85.0), ended(2e-4, 2, 84.0)]
    best = winner([*lucky, *steady], seeds=(1, 2), finalists=2)
    assert best is not None
    assert best.params == {"learning_rate": 2e-4}
    assert (best.mean, best.median) == (84.5, 84.5)
    assert best.best.point.seed == 1


def test_a_configuration_without_all_seeds_wins_only_if_none_has_them():
    one = [ended(1e-4, 1, 99.0)]
    both = [ended(2e-4, 1, 80.0), ended(2e-4, 2, 80.0)]
    assert winner([*one, *both], (1, 2), 1).params == {"learning_rate": 2e-4}  # type: ignore[union-attr]
    assert winner(one, (1, 2), 1).params == {"learning_rate": 1e-4}  # type: ignore[union-attr]
    assert winner([*one, *both], (1, 2), 0).params == {"learning_rate": 1e-4}  # type: ignore[union-attr]
    assert winner([], (1, 2), 1) is None


def test_a_grid_is_led_by_a_configuration_that_has_all_seeds_or_most_of_them():
    one = [ended(1e-4, 1, 99.0)]  # with its other seeds it met NaN
    two = [ended(2e-4, seed, 70.0) for seed in (1, 2)]
    three = [ended(3e-4, seed, 60.0) for seed in (1, 2, 3)]
    for trials, best in (([*one, *two], two), ([*one, *two, *three], three), (one, one)):
        (first,) = leaders(trials, 1, (1, 2, 3))
        assert list(first.trials) == best
        assert first == winner(trials, (1, 2, 3), 1)


def test_of_equal_means_the_cheaper_is_first():
    assert ranked([ended(1e-4, 1, 80.0, 9.0), ended(2e-4, 1, 80.0, 3.0)])[0].params == {"learning_rate": 2e-4}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.floats(0, 100)), min_size=1, max_size=12))
def test_finals_hold_every_seed_of_the_best_configurations_once(rows: list[tuple[int, int, float]]):
    trials = [
        ended(rate, seed, score)
        for rate, seed, score in {(rate, seed): (rate, seed, s) for rate, seed, s in rows}.values()
    ]
    points = finals(leaders(trials, 2, (1, 2, 3)), (1, 2, 3))
    rates = list(dict.fromkeys(point.params["learning_rate"] for point in points))
    assert [(point.params["learning_rate"], point.seed) for point in points] == [
        (r, s) for r in rates for s in (1, 2, 3)
    ]
    ranks = {one.params["learning_rate"]: (len(one.trials), one.mean) for one in ranked(trials)}
    assert all(ranks[taken] >= ranks[left] for taken in rates for left in set(ranks) - set(rates))


def test_what_the_final_adds_does_not_change_who_was_in_it():
    search = [ended(1e-4, 1, 90.0), ended(2e-4, 1, 89.0)]
    final = [ended(1e-4, 2, 70.0)]
    for trials in (search, [*search, *final]):
        assert [one.params["learning_rate"] for one in leaders(trials, 1, (1,))] == [1e-4]


def test_a_trial_is_named_by_its_point_whatever_the_order_or_type_of_numbers():
    import numpy as np

    one = point_of({"learning_rate": np.float64(1e-4), "batch_size": np.int64(16), "seed": 3}, seed=1)
    other = point_of({"batch_size": 16, "learning_rate": 1e-4}, seed=3)
    assert one == other
    assert one.name == other.name
    assert one.name != point_of({"batch_size": 16, "learning_rate": 1e-4}, seed=1).name
    assert one.configuration == point_of({"batch_size": 16, "learning_rate": 1e-4}, seed=1).configuration


def config_of(tmp_path: Path, tokenizer_dir: str, **options: Any) -> SweepConfig:
    config = SweepConfig(**make_sweep(tmp_path, tokenizer_dir, **options))
    config.validate()
    return config


def test_the_first_lines_name_their_benchmark(tmp_path: Path, sample_tokenizer_dir: str, capsys: Any):
    config = config_of(tmp_path, sample_tokenizer_dir, options={"max_eval_rows": 10})
    (tmp_path / "data" / "test.tsv").unlink()
    dry_run(config)
    told = capsys.readouterr().out.partition("\nsweep ")[0].splitlines()
    assert "reviews: epochs are chosen by a subset of 10 of 30 examples of 'dev' (max_eval_rows)" in told
    assert "reviews: split 'test' has no file and is left out" in told
    assert all(line.startswith("reviews: ") for line in told)


def test_a_course_and_its_trials(tmp_path: Path, sample_tokenizer_dir: str):
    (course,), _ = courses(config_of(tmp_path, sample_tokenizer_dir))
    assert (course.num_samples, course.finalists, course.seeds, course.max_epochs) == (3, 1, (1, 2), 3)
    assert trials_of(course) == 4
    job = job_at(course.job, Point({"learning_rate": 0.5, "batch_size": 16}, 7), tmp_path / "t")
    assert (job.recipe.learning_rate, job.config.learning_rate, job.recipe.batch_size, job.seed) == (0.5, 0.5, 16, 7)
    assert job.recipe.max_length == course.job.recipe.max_length == 48
    text = "\n".join(describe([course]))
    assert "3 trials, then 1 finalist with 2 seeds each; 60 training examples; chosen by accuracy on 'dev'" in text
    assert "learning_rate" in text
    assert "log-uniform 0.0001 to 0.01" in text
    assert "scoring and predictions come on top" in text
    text = "\n".join(describe([replace(course, searched={**course.searched, "num_train_epochs": 1}, seeds=(1,))]))
    assert "with 1 seed each" in text
    assert "a trial takes up to 1 epoch, " in text


def test_a_grid_has_every_value_with_every_seed(tmp_path: Path, sample_tokenizer_dir: str):
    grid = {"num_train_epochs": [2, 4], "batch_size": None}
    options = {"options": {"micro_batch_size": 4}, "grid": grid, "seeds": "4,5,6"}
    (course,), _ = courses(config_of(tmp_path, sample_tokenizer_dir, strategy="paper_grid", **options))
    assert (course.num_samples, course.max_epochs) == (12, 4)
    plan = plan_of(course)
    points = [spec["point"] for _, spec in generate_variants(plan.param_space)]
    assert [(each["learning_rate"], each["num_train_epochs"], each["seed"]) for each in points] == [
        (rate, epochs, seed) for rate in (1e-3, 3e-3) for epochs in (2, 4) for seed in (4, 5, 6)
    ]  # or models of all configurations had to be kept until the last seed


def test_the_name_of_a_sweep_is_what_decides_it(tmp_path: Path, sample_tokenizer_dir: str):
    def name(**options: Any) -> str:
        (course,), _ = courses(config_of(tmp_path, sample_tokenizer_dir, run_name=None, **options))
        return course.run.path.parent.name

    assert name() == name(max_concurrent_trials=1, cpus_per_trial=2, tracking_uri="none")
    others = [name(seed=1), name(num_samples=9), name(strategy="asha"), name(options={"num_train_epochs": 2})]
    ranges = [
        name(space={"learning_rate": {"uniform": [1e-4, 1e-2]}}),
        name(space={"learning_rate": {"loguniform": [1e-5, 1e-2]}}),
    ]
    assert len({name(), *others, *ranges}) == 7


def test_domains_of_a_benchmark_of_ones_own_are_told_apart_in_words():
    def own(seed: int) -> float:
        return 0.1 * seed

    domains = [
        (tune.uniform(0, 0.2), "uniform 0 to 0.2"),
        (tune.quniform(0, 0.2, 0.05), "uniform 0 to 0.2 in steps of 0.05"),
        (tune.loguniform(1e-5, 1e-3), "log-uniform 1e-05 to 0.001"),
        (tune.qloguniform(1e-5, 1e-3, 1e-6), "log-uniform 1e-05 to 0.001 in steps of 1e-06"),
        (tune.randn(5, 3), "normal, mean 5 and deviation 3"),
        (tune.qrandn(5, 3, 1), "normal, mean 5 and deviation 3 in steps of 1"),
        (tune.randint(1, 5), "uniform 1 to 5"),
        (tune.choice([8, 16]), "one of 8, 16"),
        (0.1, 0.1),
    ]
    assert [in_plain(domain) for domain, _ in domains] == [words for _, words in domains]
    told = in_plain(tune.sample_from(own))
    assert told.startswith("function own ")
    assert " at 0x" not in told  # or no other process could go on with the sweep


def test_another_sweep_in_the_same_folder_is_refused(tmp_path: Path, sample_tokenizer_dir: str):
    (course,), _ = courses(config_of(tmp_path, sample_tokenizer_dir))
    assert not open_record(course.run, course.identity(), {})
    assert open_record(course.run, course.identity(), {})
    (other,), _ = courses(config_of(tmp_path, sample_tokenizer_dir, num_samples=8, options={"max_length": 32}))
    with pytest.raises(ConfigError, match=r"max_length was 48 and is 32.*num_samples was 3 and is 8"):
        check_same(other.run, other.identity())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"learning_rat": 1}}, "learning_rat"),
        ({"options": {"seed": 1}}, "the sweep sets it itself"),
        ({"options": {"max_length": "long"}}, "long"),
        ({"options": {"learning_rate": 1e-3}, "space": {"learning_rate": [1e-3]}}, "in the search and in options"),
        ({"space": {"learning_rat": [1]}}, "learning_rat"),
        ({"space": {"hidden_dropout_prob": [1.5]}}, "hidden_dropout_prob must be from 0 to below 1"),
        (
            {"strategy": "pbt", "space": {"learning_rate": None, "weight_decay": None}},
            "none of the options that may change",
        ),
        ({"data_dir": ["nowhere"]}, "is no folder"),
        ({"model": "nowhere"}, "is no checkpoint folder"),
    ],
)
def test_what_cannot_be_is_refused_before_ray_starts(
    tmp_path: Path, sample_tokenizer_dir: str, options: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        courses(config_of(tmp_path, sample_tokenizer_dir, **options))


def test_who_signals_twice_does_not_wait_for_the_upload(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    found, _ = courses(config_of(tmp_path, sample_tokenizer_dir, upload_dir=str(tmp_path.with_suffix(".there"))))
    waited: list[bool] = []
    monkeypatch.setattr(Uploads, "close", lambda uploads, leaving: waited.append(leaving) or True)

    def swept(error: BaseException) -> bool:
        with suppress(KeyboardInterrupt), uploading(found) as news:
            raise error
        return news.all_there

    first, second = KeyboardInterrupt(), KeyboardInterrupt()
    assert swept(first)
    second.__context__ = first
    assert not swept(second)
    assert waited == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": []}, "name a benchmark"),
        ({"benchmark": ["rte", "rte"]}, "named twice"),
        ({"tracking_uri": "none", "register_model": "m"}, "register_model m is for MLflow, which tracking_uri none"),
        ({"num_samples": 0}, "num_samples must be 1 or more"),
        ({"gpus_per_trial": -1.0}, "share of one GPU"),
        ({"gpus_per_trial": 1.5}, "give --num_workers 2 --gpus_per_trial 1"),
        ({"gpus_per_trial": 2.0}, "the others would idle; give --num_workers 2 --gpus_per_trial 1"),
        ({"num_workers": 2, "gpus_per_trial": 0.5}, "one GPU for each"),
        ({"strategy": "paper_grid", "num_samples": 3}, "paper_grid takes its values"),
        ({"grid": {"learning_rate": [1]}}, "grid is for the strategy paper_grid"),
        ({"strategy": "pbt", "num_samples": 1}, "population"),
        ({"strategy": "pbt", "num_workers": 2}, "workers? .* leave num_workers at 1"),
        ({"strategy": "hyperband", "num_workers": 2}, "hyperband pauses trials"),
        ({"seeds": "1,1"}, "different numbers"),
        ({"output_dir": "s3://bucket/x", "strategy": "pbt"}, "give a folder for output_dir"),
        ({"data_dir": ["mrpc=x"]}, "none of the benchmarks"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str):
    config = SweepConfig(**{"benchmark": ["rte"], "model": "m", "data_dir": ["d"], **options})
    with pytest.raises(ConfigError, match=message):
        config.validate()


def test_data_folders_by_benchmark():
    config = SweepConfig(benchmark=["rte", "scitldr"], model="m", data_dir=["glue", "scitldr=papers"])
    config.validate()
    assert (config.folder_of("rte"), config.folder_of("scitldr")) == ("glue", "papers")
    with pytest.raises(ConfigError, match="scitldr=FOLDER"):
        replace(config, data_dir=["a", "b"]).folder_of("scitldr")


def test_torn_files_of_a_trial_are_not_taken_for_an_end(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "scores.json").write_text('{"scores": {"dev": {"acc')
    assert list(ended_trials(tmp_path, "accuracy", "dev")) == []
    scores = {"scores": {"dev": {"accuracy": 50.0}}, "best_epoch": 2}
    (tmp_path / "one" / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "one" / "point.json").write_text(json.dumps({"params": {"learning_rate": 0.1}, "seed": 3}))
    (found,) = ended_trials(tmp_path, "accuracy", "dev")
    assert (found.score, found.best_epoch, found.point.seed, found.has_model) == (50.0, 2, 3, False)


def test_trials_that_other_scorers_have_scored_are_not_mixed_with_new_ones(tmp_path: Path, sample_tokenizer_dir: str):
    config = config_of(tmp_path, sample_tokenizer_dir)
    (course,), _ = courses(config)
    open_record(course.run, course.identity(), {"source": course.job.source.described()})
    ours = dict(course.job.task.scorers())
    versions = {name: re.sub(r"scikit-learn [\d.]+", "scikit-learn 0.9.1", text) for name, text in ours.items()}
    assert versions != ours
    scored = {"before": {}, "same": ours, "older_package": versions}
    for number, (name, scorers) in enumerate(scored.items()):
        write_json(course.trials / name / "scores.json", scored_by(scorers))
        write_point(course.trials / name, Point({}, number))
    check_scorers(course)
    for number, name in enumerate(("odd", "odder")):
        write_json(course.trials / name / "scores.json", scored_by({**ours, "accuracy": "accuracy of classes"}))
        write_point(course.trials / name, Point({}, 10 + number))
    with pytest.raises(ConfigError, match=r"another 'accuracy' than this pmlm has.*: odd, odder\. Start a new sweep"):
        run(config)


def scored_by(scorers: dict[str, str]) -> dict[str, Any]:
    return {"scores": {"dev": {"accuracy": 50.0}}, "best_epoch": 1, "scorers": scorers}


def test_the_board_says_best_counts_and_phase():
    standing = Standing("rte", "accuracy")
    standing.begin("search", 8, ["before"])
    standing.running = {"a", "b"}
    standing.outcomes |= {"c": "finished", "d": "failed", "before": "finished"}
    board = Board([standing])
    standing.lead(74.0, "learning_rate 0.0002", final=False)
    assert "1 failed, best epoch so far accuracy 74.00 (learning_rate 0.0002)" in board.line()
    standing.lead(71.234, "learning_rate 0.0001", final=True)  # though an epoch, of a part of the split, had more
    assert "rte search 3/8, 2 running, 1 failed, best trial accuracy 71.23 (learning_rate 0.0001)" in board.line()
    assert board.table().row_count == 1
    standing.begin("finalists", 2, [])
    assert "best" not in board.line()


@pytest.mark.parametrize("taken", [True, False])
def test_a_member_of_a_population_notes_its_place_and_keeps_its_own_past(tmp_path: Path, taken: bool):
    journal = Journal(tmp_path)
    for step in (8, 16, 24):
        journal.append(step, {"eval/accuracy": float(step)})
    journal.close()
    for step in (8, 16):
        folder_of(RunDir(tmp_path).checkpoints, step).mkdir(parents=True)
    note_place(tmp_path, Point({"learning_rate": 1e-3, "strategy": "words"}, 1), taken=taken)
    entries = [(entry.step, entry.metrics) for entry in Journal(tmp_path).entries()]
    left = [(8, {"eval/accuracy": 8.0}), (16, {"eval/accuracy": 16.0})]
    left += [] if taken else [(24, {"eval/accuracy": 24.0})]
    assert entries == [*left, (16, {"population/learning_rate": 1e-3})]


def test_what_the_winner_predicts_afterwards_does_not_make_it_the_dearer(tmp_path: Path):
    (tmp_path / "scores.json").write_text(json.dumps({"scores": {"dev": {"accuracy": 80.0}}, "best_epoch": 1}))
    (tmp_path / "point.json").write_text(json.dumps({"params": {}, "seed": 1}))
    before = write_cost(tmp_path, {"seconds": 0.0, "cpu_seconds": 0.0, "gpu_seconds": 0.0}, 5.0, 2, 0)
    write_cost(tmp_path, before | {COMPLETING: 3.0}, 3.0, 2, 0)
    assert read_cost(tmp_path) == {"seconds": 8.0, "cpu_seconds": 16.0, "gpu_seconds": 0.0, COMPLETING: 3.0}
    ended = read_ended(tmp_path, "accuracy", "dev")
    assert ended is not None
    assert ended.seconds == 5.0
