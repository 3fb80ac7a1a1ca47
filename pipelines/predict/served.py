"""A fine-tuned model that is asked row by row, as a registered model is: what `pmlm predict` would write, as data.

Neither Ray nor MLflow is imported here, nor by anything that this needs.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from pipelines.predict.config import PredictConfig
from pipelines.predict.fields import FieldError, example_of, wanted
from pipelines.predict.finetuned import Finetuned, open_finetuned
from pipelines.predict.predictor import Predictor
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.randomness import key

_CHUNK_ROWS = 1024
_COLUMNS = ("text", "text_pair", "question", "context", "source")
_Given = tuple[tuple[str, Any], ...]


class Served:
    """The model in `folder`, loaded when it is first asked, on the GPU where torch sees one.

    Raises:
        ConfigError: it is no folder of a fine-tuned model.
        CheckpointError: its weights are damaged.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._finetuned = open_finetuned(self._config(()))
        self._own = options_of(self._finetuned)
        self._loaded: Predictor | None = None
        self._predictor = lru_cache(maxsize=8)(self._predictor_under)

    def predict(self, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One dictionary a row, in order.

        Args:
            rows: with the columns of `columns_of`; others are passed over.
            options: some of those of `options_of`.

        Raises:
            DataError: a row has no text where it needs one.
            ConfigError: an option is unknown or out of range.
        """
        if unknown := [name for name in options if name not in self._own]:
            raise ConfigError(f"this model has no option '{unknown[0]}'; it has {', '.join(self._own)}")
        given = tuple(sorted((name, value) for name, value in options.items() if value != self._own[name]))
        predictor, max_bytes = self._predictor(given), self._config(given).max_row_bytes
        kind, roles = self._finetuned.task.kind, {name: name for name in columns_of(self._finetuned)}
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), _CHUNK_ROWS):
            examples = []
            for number, row in enumerate(rows[start : start + _CHUNK_ROWS], start + 1):
                try:
                    examples.append(example_of(kind, roles, row, number, max_bytes))
                except FieldError as error:
                    raise DataError(f"row {number}: {error.detail}") from None
            found += predictor.predict(examples, key(0, "predict", 0, start // _CHUNK_ROWS))
        return found

    def _config(self, given: _Given) -> PredictConfig:
        config = PredictConfig(
            model=self._folder,
            inputs=["rows"],  # no files are read or written; that one is named is all that is checked
            output_dir="none",
            use_gpu=torch.cuda.is_available(),
            cpus_per_worker=torch.get_num_threads(),
            **dict(given),
        )
        config.validate()
        return config

    def _predictor_under(self, given: _Given) -> Predictor:
        config = self._config(given)
        finetuned = open_finetuned(config) if given else self._finetuned
        if self._loaded is None:
            self._loaded = Predictor(config, finetuned)
        return self._loaded.under(config, finetuned)


def columns_of(finetuned: Finetuned) -> list[str]:
    """The columns of texts that a row must have, named by what they are for."""
    _, needed = wanted(PredictConfig(), finetuned)
    return [name for name in _COLUMNS if name in needed]


def options_of(finetuned: Finetuned) -> dict[str, int | float]:
    """Options of a prediction that a caller may set, with the values that the model takes by itself."""
    own: dict[str, int | float] = {"batch_size": PredictConfig.batch_size}
    if finetuned.task.kind == "question_answering":
        own["n_best"] = PredictConfig.n_best
        if finetuned.task.can_be_unanswerable:
            own["null_threshold"] = 0.0
    elif finetuned.task.kind == "generation":
        told = {name: value for name, value in finetuned.generation.items() if value is not None}
        if (beams := int(told.get("num_beams", 1))) == 1:
            told.pop("length_penalty", None)  # which is none; with beams it is the recipe's
        own |= {
            "num_beams": beams,
            "max_target_length": finetuned.recipe.max_target_length,
            "min_target_length": int(told.get("min_new_tokens", 0)),
            "length_penalty": float(told.get("length_penalty", finetuned.recipe.length_penalty)),
            "no_repeat_ngram_size": int(told.get("no_repeat_ngram_size", 0)),
        }
    return own
