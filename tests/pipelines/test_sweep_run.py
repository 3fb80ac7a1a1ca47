"""`pmlm sweep` over a real Ray and a real MLflow: every strategy, several benchmarks, failures, and going on."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import write_pairs
from mlflow import MlflowClient
from mlflow.entities import Run
from sweeping_data import make_sweep

from pipelines.sweep.config import SweepConfig
from pipelines.sweep.run import dry_run, run
from pmlm_core.errors import TrainingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


def swept(folder: Path, tokenizer_dir: str, **options: Any) -> dict[str, Any]:
    config = SweepConfig(**make_sweep(folder, tokenizer_dir, **options))
    config.validate()
    run(config)
    return json.loads((Path(config.output_dir) / str(config.run_name) / "reviews" / "result.json").read_text())


def runs_of(folder: Path, sweep: str, benchmark: str = "reviews") -> tuple[Run, list[Run]]:
    """Parent and children of a sweep in MLflow."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"pmlm-{benchmark}")
    found = client.search_runs([experiment.experiment_id], f"tags.sweep = '{sweep}'")
    (parent,) = [each for each in found if each.data.tags["stage"] == "sweep"]
    return parent, [each for each in found if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


@pytest.mark.usefixtures("ray_session")
class TestSweep:
    def test_random_search_finalists_winner_and_the_same_command_again(
        self, folder: Path, sample_tokenizer_dir: str, capsys: Any
    ):
        result = swept(folder, sample_tokenizer_dir, run_name="random", stop_hopeless=False, register_model=None)
        won = result["winner"]
        assert list(won["seeds"]) == ["1", "2"]
        assert won["mean"] == pytest.approx(sum(won["seeds"].values()) / 2)
        assert len(result["configurations"]) == 3
        trials = folder / "out" / "random" / "reviews" / "trials"
        assert len(list(trials.glob("*/scores.json"))) == 4
        best = trials / won["trial"]
        assert (best / "predictions" / "predictions.test.tsv").is_file()  # without labels, so the winner's alone
        others = [each for each in trials.iterdir() if each != best]
        assert not any((each / "predictions" / "predictions.test.tsv").exists() for each in others)

        parent, children = runs_of(folder, "random")
        assert (parent.info.status, parent.data.metrics["trials/finished"]) == ("FINISHED", 4.0)
        assert parent.data.tags["winner"] == won["trial"]
        assert len(children) == 4
        (winner,) = [each for each in children if each.info.run_id == parent.data.tags["winner_run_id"]]
        assert winner.data.tags["outcome"] == "finished"
        assert winner.data.params["learning_rate"] == str(won["params"]["learning_rate"])
        assert winner.data.metrics["final/dev/accuracy"] == max(won["seeds"].values())
        cost = json.loads((best / "cost.json").read_text())  # what predicting the rest has cost among it
        assert winner.data.metrics["cost/seconds"] == cost["seconds"] > 0
        assert parent.data.metrics["cost/seconds"] == pytest.approx(
            sum(child.data.metrics["cost/seconds"] for child in children)
        )
        assert winner.data.metrics["baseline/dev/accuracy"] == pytest.approx(100 * 2 / 3)
        client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        version = client.get_model_version_by_alias("pmlm-reviews", "champion")
        assert version.run_id == winner.info.run_id

        capsys.readouterr()
        before = {path: path.stat().st_mtime_ns for path in trials.glob("*/scores.json")}
        assert (
            swept(folder, sample_tokenizer_dir, run_name="random", stop_hopeless=False, register_model=None) == result
        )
        assert {path: path.stat().st_mtime_ns for path in trials.glob("*/scores.json")} == before
        assert len(runs_of(folder, "random")[1]) == 4
        said = capsys.readouterr().out
        assert "reviews is finished: it was swept before" in said
        assert "reviews: accuracy" in said
        assert "the baseline, always 'ship', has 66.67" in said.replace("\n", " ")
        assert "are others" not in said

        test = folder / "data" / "test.tsv"
        before = test.read_text()
        test.write_text(f"{before}The boy saw the ship.\n")
        try:
            dry_run(SweepConfig(**make_sweep(folder, sample_tokenizer_dir, run_name="random", stop_hopeless=False)))
        finally:
            test.write_text(before)
        said = " ".join(capsys.readouterr().out.split())
        assert "the winner of reviews is kept as it is, and the examples of split 'test' are others" in said
        assert said.endswith(f"all of {folder / 'out' / 'random'} is finished: nothing is left to search")

    @pytest.mark.slow
    def test_a_grid_finds_a_winner(self, folder: Path, sample_tokenizer_dir: str):
        self.found(folder, sample_tokenizer_dir, "paper_grid")

    @pytest.mark.slow
    @pytest.mark.parametrize("strategy", ["asha", "optuna", "optuna_pareto", "hyperband", "pbt"])
    @pytest.mark.timeout(900)
    def test_the_other_strategies_find_one_too(self, folder: Path, sample_tokenizer_dir: str, strategy: str):
        self.found(folder, sample_tokenizer_dir, strategy)

    def found(self, folder: Path, tokenizer_dir: str, strategy: str) -> None:
        size = {} if strategy == "paper_grid" else {"num_samples": 4, "finalists": 0}
        options = {"run_name": strategy, "strategy": strategy, "max_concurrent_trials": 2, **size}
        result = swept(folder, tokenizer_dir, **options)
        assert result["winner"]["mean"] > 60.0
        assert len(result["winner"]["seeds"]) == (2 if strategy == "paper_grid" else 1)
        best = folder / "out" / strategy / "reviews" / "trials" / result["winner"]["trial"]
        assert (best / "model" / "config.json").is_file()
        parent, children = runs_of(folder, strategy)
        outcomes = [each.data.tags["outcome"] for each in children]
        assert len(outcomes) == 4
        assert set(outcomes) <= {"finished", "stopped"}
        assert parent.data.metrics["trials/finished"] == outcomes.count("finished")
        if strategy == "paper_grid":  # the models of earlier leaders are gone; the winner's alone may be trained again
            events = [json.loads(line) for file in best.parent.glob("*/events.jsonl") for line in file.open()]
            assert sum(event["kind"] == "resumed" for event in events) <= 5
        if strategy in ("paper_grid", "asha"):  # again: nothing is trained, and the winner's model is still there
            (best.parents[1] / "result.json").unlink()  # as if it had been killed at the end
            before = sorted(path.stat().st_mtime_ns for path in best.parent.glob("*/scores.json"))
            assert swept(folder, tokenizer_dir, **options)["winner"] == result["winner"]
            assert (best / "model" / "config.json").is_file()
            again = sorted(path.stat().st_mtime_ns for path in best.parent.glob("*/scores.json"))
            assert again == before
            assert len(runs_of(folder, strategy)[1]) == 4

    @pytest.mark.slow
    def test_a_trial_that_fails_is_recorded_and_the_others_go_on(
        self, folder: Path, sample_tokenizer_dir: str, capsys: Any
    ):
        options = {
            "strategy": "paper_grid",
            "grid": {"learning_rate": [3e-3, 1e30]},
            "seeds": "1",
            "options": {"batch_size": 8, "max_grad_norm": None},
        }
        result = swept(folder, sample_tokenizer_dir, run_name="failing", **options)
        assert result["winner"]["params"] == {"learning_rate": 3e-3}
        parent, children = runs_of(folder, "failing")
        (failed,) = [each for each in children if each.data.tags["outcome"] == "failed"]
        assert failed.data.params["learning_rate"] == "1e+30"
        assert "the loss is nan" in failed.data.tags["failure"]
        assert failed.info.status == "FAILED"
        assert parent.data.metrics["trials/failed"] == 1.0
        assert "the loss is nan" in capsys.readouterr().out.replace("\n", " ")
        trial = folder / "out" / "failing" / "reviews" / "trials" / failed.data.tags["trial"]
        assert "the loss is nan" in json.loads((trial / "failure.json").read_text())["message"]

    @pytest.mark.slow
    def test_if_all_trials_fail_that_is_an_error(self, folder: Path, sample_tokenizer_dir: str):
        space = {"learning_rate": {"choice": [1e30]}, "weight_decay": None}
        with pytest.raises(TrainingError, match="no trial came to its end"):
            swept(folder, sample_tokenizer_dir, run_name="hopeless", space=space, num_samples=1)
        assert runs_of(folder, "hopeless")[0].info.status == "FAILED"

    @pytest.mark.slow
    def test_two_benchmarks_share_the_cluster(self, folder: Path, sample_tokenizer_dir: str):
        write_pairs(folder / "pairs")
        options = make_sweep(folder, sample_tokenizer_dir, run_name="both", num_samples=2, finalists=0)
        text = (folder / "reviews.py").read_text()
        for old, new in (
            ('name="reviews"', 'name="pairs"'),
            ('task="classification"', 'task="seq2seq"'),
            ('metric="accuracy"', 'metric="rouge1"'),
            ('"max_length": 48', '"max_length": 40, "max_target_length": 6, "num_beams": 2'),
            ('published=(Published("a person", {"accuracy": 100.0}),),', ""),
        ):
            assert old in text
            text = text.replace(old, new)
        (folder / "pairs.py").write_text(text)
        names = [str(folder / "reviews.py"), str(folder / "pairs.py")]
        data = [f"{names[0]}={folder / 'data'}", f"{names[1]}={folder / 'pairs'}"]
        run(SweepConfig(**{**options, "benchmark": names, "data_dir": data}))
        for benchmark, metric in (("reviews", "accuracy"), ("pairs", "rouge1")):
            result = json.loads((folder / "out" / "both" / benchmark / "result.json").read_text())
            assert result["metric"] == metric
            assert len(runs_of(folder, "both", benchmark)[1]) == 2

    @pytest.mark.slow
    def test_trials_of_several_workers(self, folder: Path, sample_tokenizer_dir: str):
        options = {"num_workers": 2, "num_samples": 2, "finalists": 0, "strategy": "asha", "tracking_uri": "none"}
        result = swept(folder, sample_tokenizer_dir, run_name="workers", **options)
        assert 1 <= len(result["configurations"]) <= 2
        assert result["winner"]["mean"] > 40.0

    def test_epochs_and_winners_are_chosen_by_the_benchmarks_own_figure(self, folder: Path, sample_tokenizer_dir: str):
        made = make_sweep(folder, sample_tokenizer_dir, run_name="matthews", num_samples=1, finalists=0)
        text = (folder / "reviews.py").read_text().replace('metric="accuracy"', 'metric="matthews"')
        (folder / "by_matthews.py").write_text(
            text.replace('published=(Published("a person", {"accuracy": 100.0}),),', "")
        )
        run(SweepConfig(**{**made, "benchmark": [str(folder / "by_matthews.py")], "tracking_uri": "none"}))
        result = json.loads((folder / "out" / "matthews" / "reviews" / "result.json").read_text())
        assert result["metric"] == "matthews"
        trial = folder / "out" / "matthews" / "reviews" / "trials" / result["winner"]["trial"]
        scores = json.loads((trial / "scores.json").read_text())
        assert scores["metric"] == "matthews"
        assert result["winner"]["mean"] == scores["scores"]["dev"]["matthews"]
