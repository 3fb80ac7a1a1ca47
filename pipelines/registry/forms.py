"""The two forms in which a folder is registered: one that fills masks, and, once fine-tuned, one that predicts.

Each is a program that MLflow runs, what the program needs, and what callers are told: signature, example, description.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pmlm_core

_REQUIREMENTS = ("torch", "transformers", "safetensors", "tokenizers", "sentencepiece", "pyarrow", "numpy", "numba")


@dataclass(frozen=True)
class Form:
    """How a folder is registered.

    Attributes:
        program: a file beside this one.
        packages: of this repository, shipped with the model.
        requirements: what these import.
        input_example: what `predict` may be given.
        description, tags: of the version.
    """

    program: str
    packages: tuple[ModuleType, ...]
    requirements: tuple[str, ...]
    signature: Any
    input_example: Any
    description: str
    tags: Mapping[str, str]


def form_of(checkpoint: Path) -> Form:
    """The form that fits a folder.

    Raises:
        ConfigError, CheckpointError: it was fine-tuned, but is not as `pmlm finetune` left it.
    """
    from pipelines.finetune.source import TASK_FILE

    described = checkpoint / TASK_FILE
    return _predicting(checkpoint, described) if described.is_file() else _filling()


def _filling() -> Form:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, ParamSchema, ParamSpec, Schema

    from pmlm_core.model.filling import MASK_TEXT

    candidate = _object(token="string", probability="double")
    outputs: list[Any] = [
        ColSpec("string", "text"),
        ColSpec("string", "filled"),
        ColSpec(Array(Array(candidate)), "masks"),
    ]
    params = ParamSchema([ParamSpec("top_k", "long", 5)])
    return Form(
        "fill_model.py",
        (pmlm_core,),
        _REQUIREMENTS,
        ModelSignature(inputs=Schema([ColSpec("string")]), outputs=Schema(outputs), params=params),
        [f"The old {MASK_TEXT} went into the house."],
        "A pre-trained model that fills masks.",
        {},
    )


def _predicting(checkpoint: Path, described: Path) -> Form:
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    import pipelines
    from pipelines.predict.config import PredictConfig
    from pipelines.predict.finetuned import open_finetuned
    from pipelines.predict.served import columns_of, options_of

    finetuned = open_finetuned(PredictConfig(model=str(checkpoint)))
    told = json.loads(described.read_text(encoding="utf-8"))
    kind, columns = finetuned.task.kind, columns_of(finetuned)
    params = [
        ParamSpec(name, "long" if isinstance(value, int) else "double", value)
        for name, value in options_of(finetuned).items()
    ]
    inputs: list[Any] = [ColSpec("string", name) for name in columns]
    return Form(
        "predict_model.py",
        (pmlm_core, pipelines),
        (*_REQUIREMENTS, "rich"),
        ModelSignature(inputs=Schema(inputs), outputs=Schema(_outputs(kind)), params=ParamSchema(params)),
        pandas.DataFrame([_row(kind, finetuned.task.name, columns)]),
        _description(told, columns),
        _tags(told),
    )


def _outputs(kind: str) -> list[Any]:
    from mlflow.types.schema import Array, ColSpec, DataType, Map

    match kind:
        case "question_answering":
            span = _object(text="string", start="long", score="double", probability="double")
            return [
                ColSpec("string", "answer"),
                ColSpec("long", "start"),
                ColSpec("double", "score"),
                ColSpec("double", "null_score", required=False),
                ColSpec(Array(span), "n_best", required=False),
            ]
        case "generation":
            return [ColSpec("string", "text")]
        case "regression":
            return [ColSpec("double", "value")]
    return [ColSpec("string", "label"), ColSpec(Map(DataType.double), "probabilities")]


def _object(**properties: str) -> Any:
    from mlflow.types.schema import DataType, Object, Property

    return Object([Property(name, DataType[kind]) for name, kind in properties.items()])


def _row(kind: str, task: str, columns: list[str]) -> dict[str, str]:
    """A row as people write them, for the input example."""
    from pipelines.predict.fields import QUESTION_GENERATION
    from pmlm_core.tasks.question_generation import SEPARATOR

    passage = "The Nautilus was built on a desert island. Captain Nemo had its parts made in different countries."
    if task in QUESTION_GENERATION:
        return {"source": f"Captain Nemo{SEPARATOR}{passage}"}
    row = {
        "text": "The captain of the ship had its parts made in different countries.",
        "text_pair": "The ship was built from parts of many countries.",
        "question": "Where was the Nautilus built?",
        "context": passage,
        "source": passage,
    }
    return {name: row[name] for name in columns}


def _description(told: Mapping[str, Any], columns: list[str]) -> str:
    score = _score(told)
    reached = f", {told['metric']} {score[1]:.2f} on {score[0]}" if score else ""
    return (
        f"Fine-tuned for {told['task']} ({str(told['kind']).replace('_', ' ')}){reached}. "
        f"Takes a table with {' and '.join(columns)}; gives what `pmlm predict` writes."
    )


def _tags(told: Mapping[str, Any]) -> dict[str, str]:
    score = _score(told)
    tags = {name: told.get(name) for name in ("task", "kind", "metric", "seed", "epoch")}
    if score:
        tags |= {f"{score[0]}.{told['metric']}": score[1]}
    pretrained = told.get("pretrained") or {}
    tags |= {f"pretrained.{name}": pretrained.get(name) for name in ("sha256", "path", "mlflow_run_id")}
    return {name: str(value) for name, value in tags.items() if value is not None}


def _score(told: Mapping[str, Any]) -> tuple[str, float] | None:
    """The split that epochs were chosen by, the first that has the metric, and its score."""
    metric, scores = told.get("metric"), told.get("scores") or {}
    return next(((split, figures[metric]) for split, figures in scores.items() if metric in figures), None)
