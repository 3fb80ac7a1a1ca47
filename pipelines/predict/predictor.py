"""The model at work: examples in, the fields of their predictions out, in order. Batches are alike in length."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from pipelines.finetune.families import Batch, Family, Feature, Generations, family_of
from pipelines.finetune.predict import outputs_of
from pipelines.finetune.source import model_class, open_source
from pipelines.predict.config import PredictConfig
from pipelines.predict.finetuned import Finetuned
from pipelines.team import Team
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import CheckpointError, DataError, PmlmError
from pmlm_core.randomness import key
from pmlm_core.tasks.answers import N_BEST, answers_of, with_threshold
from pmlm_core.tasks.encode_seq2seq import decode_targets
from pmlm_core.training.hardware import set_up

_DIGITS = 6
"""Of probabilities and scores: the rest is the arithmetic's noise."""


class InMemory:
    """Features of a chunk, with the face of `pipelines.finetune.features.Features`."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self.lengths = np.array([len(feature["input_ids"]) for feature in features])

    def __len__(self) -> int:
        return len(self._features)

    def rows(self, numbers: Sequence[int]) -> list[Feature]:
        return [self._features[int(number)] for number in numbers]


class Searching(Generations):
    """Generation as the model's own configuration says, with what was asked for in its place."""

    search: Mapping[str, Any] = {}
    stream = 0
    _drawn = 0

    def begin(self, stream: int) -> None:
        """What the next batches draw from, if they sample."""
        self.stream, self._drawn = stream, 0

    def infer(self, model: nn.Module, batch: Batch, *, num_beams: int) -> list[Any]:
        torch.manual_seed(key(self.stream, "sampling", self._drawn) >> 1)
        self._drawn += 1
        return model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **self.search).tolist()  # type: ignore[operator]


class Predictor:
    """A loaded model.

    Raises:
        CheckpointError: it cannot be loaded, or is not the one that the run began with.
    """

    def __init__(self, config: PredictConfig, finetuned: Finetuned) -> None:
        path = finetuned.source.path
        self._precision = set_up(use_gpu=config.use_gpu, threads=config.cpus_per_worker, precision=config.precision)
        try:
            found = open_source(path)
            tokenizer = TextTokenizer.load(path)
            model = model_class(finetuned.task).from_pretrained(path, dtype=torch.float32)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            if isinstance(error, PmlmError):
                raise
            text = " ".join(str(error).split())[:300]
            raise CheckpointError(f"model {path} cannot be loaded ({type(error).__name__}: {text})") from error
        if (found.sha256, found.tokenizer) != (finetuned.source.sha256, finetuned.source.tokenizer):
            raise CheckpointError(
                f"model {path} has other weights here than where the command began; is it one folder?"
            )
        self._model = model.to(self._precision.device).eval()
        self._tokenizer = tokenizer
        self._settle(config, finetuned)

    def _settle(self, config: PredictConfig, finetuned: Finetuned) -> None:
        self._config, self._finetuned, task = config, finetuned, finetuned.task
        self._family: Family = family_of(task, finetuned.recipe, self._tokenizer)
        if task.kind == "generation":
            self._family = Searching(task, finetuned.recipe, self._tokenizer)
            self._family.search = finetuned.search

    def under(self, config: PredictConfig, finetuned: Finetuned) -> "Predictor":
        """The same model, which is not loaded again, under other options."""
        other = copy.copy(self)
        other._settle(config, finetuned)
        return other

    def predict(self, examples: Sequence[Any], stream: int) -> list[dict[str, Any]]:
        """Fields of the predictions, one dictionary an example.

        Args:
            stream: what sampling draws from; a function of the seed and the place of the examples.

        Raises:
            DataError: the model gives numbers that are not finite.
        """
        if isinstance(self._family, Searching):
            self._family.begin(stream)
        features = self._family.encode(examples, training=False)
        held: Any = InMemory(features)
        outputs = outputs_of(
            self._family, self._model, held, self._precision, Team(), batch_size=self._config.batch_size, num_beams=1
        )
        match self._finetuned.task.kind:
            case "question_answering":
                return self._answers(examples, features, outputs)
            case "generation":
                return [{"text": text} for text in decode_targets(outputs, self._tokenizer)]
            case "regression":
                return [{"value": round(float(value), _DIGITS)} for (value,) in self._finite(outputs).tolist()]
        return self._labels(outputs)

    def _labels(self, outputs: Sequence[Any]) -> list[dict[str, Any]]:
        labels = self._finetuned.task.labels
        logits = self._finite(outputs)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return [
            {
                "label": labels[best],
                "probabilities": {label: round(share, _DIGITS) for label, share in zip(labels, row, strict=True)},
            }
            for best, row in zip(logits.argmax(1).tolist(), shares.tolist(), strict=True)
        ]

    def _finite(self, outputs: Sequence[Any]) -> np.ndarray:
        logits = np.array(outputs, np.float64)
        if not np.isfinite(logits).all():
            raise DataError(
                f"model {self._finetuned.source.path} gives numbers that are not finite; try precision fp32"
            )
        return logits

    def _answers(
        self, examples: Sequence[Any], features: Sequence[Feature], outputs: Sequence[Any]
    ) -> list[dict[str, Any]]:
        config = self._config
        answers = answers_of(
            examples,
            features,
            outputs,
            can_be_unanswerable=self._finetuned.task.can_be_unanswerable,
            # A span's probability is its share among these, so it must not hang on how many are listed.
            n_best=max(config.n_best, N_BEST) if config.n_best else 1,
        )
        found = []
        for best in answers:
            answer = with_threshold(best, config.null_threshold or 0.0)
            null = None if answer.null_score is None else round(answer.null_score, _DIGITS)
            fields: dict[str, Any] = {
                "answer": answer.text,
                "start": answer.start,
                "score": round(answer.score, _DIGITS),
                "null_score": null,
            }
            if config.n_best:
                fields["n_best"] = [_rounded(each) for each in answer.n_best[: config.n_best]]
            found.append(fields)
        return found


def _rounded(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in entry.items()}
