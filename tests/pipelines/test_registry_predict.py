"""Fine-tuned models of every kind, registered, and asked by a process that sees neither this repository nor Ray."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from predicting_data import make_finetuned, predict

from pipelines.registry import models
from pipelines.tracking.sink import MlflowSink

ROWS: dict[str, list[dict[str, str]]] = {
    "classification": [
        {"text": "The captain saw the ship."},
        {"text": ""},
        {"text": "An old house by the river. " * 9},
    ],
    "regression": [
        {"text": "The boy left.", "text_pair": "The boy went away."},
        {"text": "The boy left.", "text_pair": "A ship lay in the bay."},
    ],
    "question_answering": [
        {"question": "Who was the captain?", "context": "The ship lay in the bay. " * 6 + "The captain was Tom."},
        {"question": "Where?", "context": "In the bay."},
    ],
    "generation": [{"source": "The old man saw the river and went away."}, {"source": "The house."}],
}
TASKS = {"regression": "stsb"}
OPTIONS: dict[str, dict[str, Any]] = {
    "question_answering": {"n_best": 2, "null_threshold": -3.0},
    "generation": {"num_beams": 3, "max_target_length": 5, "length_penalty": 0.2},
}

# Of this repository only what the model carries; Ray and what else only training needs cannot be imported.
PROGRAM = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "jsonargparse", "optuna", "sacrebleu"):
            raise ModuleNotFoundError(name)
sys.meta_path = [Absent(), *(f for f in sys.meta_path if "__editable__" not in repr(f))]
sys.path = [p for p in sys.path if p != sys.argv[1]]
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[2])
found = {}
for kind, (rows, options) in json.loads(sys.argv[3]).items():
    model = mlflow.pyfunc.load_model(f"models:/pmlm-{kind}@champion")
    table = pandas.DataFrame(rows)
    found[kind] = [model.predict(table), model.predict(table, params=options) if options else None]
import pipelines, pmlm_core
print(json.dumps([[pipelines.__file__, pmlm_core.__file__], found]))
"""


@pytest.fixture(scope="module")
def folders(sample_tokenizer_dir: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    top = tmp_path_factory.mktemp("finetuned")
    made = {k: make_finetuned(top / k / "model", sample_tokenizer_dir, k, task=TASKS.get(k)) for k in ROWS}
    path = Path(made["regression"]) / "pmlm_task.json"
    told = json.loads(path.read_text())
    told |= {"metric": "pearson", "seed": 3, "epoch": 2, "pretrained": {"sha256": "ab" * 32, "mlflow_run_id": None}}
    told["scores"] = {"dev": {"pearson": 81.25, "spearman": 80.0}, "test": {}}
    path.write_text(json.dumps(told))
    return made


@pytest.fixture(scope="module")
def uri(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store where all of them are registered."""
    address = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    for kind, folder in folders.items():
        run_dir = Path(folder).parent
        assert MlflowSink(run_dir, address, "pmlm", kind).finish("FINISHED", 60)
        assert models.register(run_dir, folder, f"pmlm-{kind}", address, "champion") == f"pmlm-{kind} version 1"
    return address


@pytest.mark.slow
def test_registered_models_predict_as_the_command_does(folders: dict[str, str], uri: str, tmp_path: Path) -> None:
    repository = str(Path(__file__).resolve().parents[2])
    asked = json.dumps({kind: (rows, OPTIONS.get(kind)) for kind, rows in ROWS.items()})
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, repository, uri, asked]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    where, found = json.loads(done.stdout.strip().splitlines()[-1])
    assert not any(path.startswith(repository) for path in where)
    for kind, rows in ROWS.items():
        inputs = tmp_path / f"{kind}.jsonl"
        inputs.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for number, options in enumerate(({}, OPTIONS.get(kind))):
            if options is None:
                continue
            wanted = predict(folders[kind], [inputs], tmp_path / f"{kind}{number}", precision="auto", **options)
            fields = [{k: v for k, v in line.items() if k not in ("id", "row", "file")} for line in wanted]
            assert found[kind][number] == fields
    assert set(found["classification"][0][0]) == {"label", "probabilities"}
    assert found["question_answering"][0] != found["question_answering"][1]
    assert found["generation"][0] != found["generation"][1]


def test_callers_are_told_what_it_takes_and_gives(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # MLflow sets it too, and the next test is not to find it
    mlflow.set_tracking_uri(uri)
    signatures = {kind: mlflow.models.get_model_info(f"models:/pmlm-{kind}/1").signature for kind in ROWS}
    for kind, rows in ROWS.items():
        assert signatures[kind].inputs.input_names() == list(rows[0])
        assert {str(column.type) for column in signatures[kind].inputs} == {"DataType.string"}
        assert set(OPTIONS.get(kind, {})) <= {param.name for param in signatures[kind].params}
    defaults = {param.name: param.default for param in signatures["generation"].params}
    assert (defaults["num_beams"], defaults["max_target_length"], defaults["length_penalty"]) == (2, 8, 0.7)
    assert signatures["classification"].outputs.input_names() == ["label", "probabilities"]


def test_versions_say_where_they_come_from(uri: str) -> None:
    version = MlflowClient(uri, uri).get_model_version_by_alias("pmlm-regression", "champion")
    assert "stsb (regression), pearson 81.25 on dev" in version.description
    assert "text and text_pair" in version.description
    expected = {"task": "stsb", "metric": "pearson", "dev.pearson": "81.25", "pretrained.sha256": "ab" * 32}
    assert expected.items() <= version.tags.items()


def test_what_is_stored_is_code_and_weights(uri: str) -> None:
    stored = {path.name for path in Path(uri.removeprefix("sqlite:///")).parent.rglob("*") if path.is_file()}
    assert {"predict_model.py", "served.py", "pmlm_task.json", "model.safetensors", "input_example.json"} <= stored
    assert not any(name.endswith(".pkl") for name in stored)
