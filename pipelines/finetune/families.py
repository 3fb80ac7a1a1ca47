"""What the kinds of tasks have in common for training and prediction: encode, collate, infer, and turn into answers.

Everything model- or task-specific is called from here; the loop knows no kinds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.tasks.base import Prediction, Recipe, Task

_TRAINING_COLUMNS = ("input_ids", "token_type_ids", "start_position", "end_position")

Feature = dict[str, Any]
Batch = dict[str, Tensor]


class Family(Protocol):
    """One kind of task, with its task, recipe and tokenizer."""

    def encode(self, examples: Sequence[Any], *, training: bool) -> list[Feature]:
        """Features of consecutive examples, in order; several of one example carry its place as "example"."""
        ...

    def collate(self, features: Sequence[Feature], *, streams: Sequence[int] | None) -> Batch:
        """Tensors of a micro-batch. `streams` seed each row's noise in training; None for prediction."""
        ...

    def infer(self, model: nn.Module, batch: Batch, *, num_beams: int) -> list[Any]:
        """What the model says of each row; plain data that can be sent to another process."""
        ...

    def predictions(self, examples: Sequence[Any], features: Any, outputs: Sequence[Any]) -> dict[str, Prediction]:
        """Predictions by example id from the outputs of all features, in order."""
        ...


def family_of(task: Task, recipe: Recipe, tokenizer: TextTokenizer) -> Family:
    """The family that a task belongs to."""
    kinds: Mapping[str, Any] = {
        "classification": Texts,
        "regression": Texts,
        "question_answering": Questions,
        "generation": Generations,
    }
    return kinds[task.kind](task, recipe, tokenizer)


class _Base:
    def __init__(self, task: Task, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        self.task, self.recipe, self.tokenizer = task, recipe, tokenizer


class Texts(_Base):
    """Classification and regression: one feature an example."""

    def encode(self, examples: Sequence[Any], *, training: bool) -> list[Feature]:
        from pmlm_core.tasks.encode_text import encode_text

        return encode_text(examples, self.tokenizer, self.task, self.recipe.max_length)

    def collate(self, features: Sequence[Feature], *, streams: Sequence[int] | None) -> Batch:
        from pmlm_core.tasks.encode_text import collate_text

        return collate_text(features, self.tokenizer.special_ids.pad)

    def infer(self, model: nn.Module, batch: Batch, *, num_beams: int) -> list[Any]:
        logits_BL = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits.float()
        return logits_BL.tolist()

    def predictions(self, examples: Sequence[Any], features: Any, outputs: Sequence[Any]) -> dict[str, Prediction]:
        if self.task.kind == "regression":
            return {example.id: float(logits[0]) for example, logits in zip(examples, outputs, strict=True)}
        labels = self.task.labels
        best = torch.tensor(outputs).argmax(-1).tolist()
        return {example.id: labels[at] for example, at in zip(examples, best, strict=True)}


class Questions(_Base):
    """Extractive question answering: one feature a window of a passage."""

    def encode(self, examples: Sequence[Any], *, training: bool) -> list[Feature]:
        from pmlm_core.tasks.encode_qa import encode_qa

        recipe = self.recipe
        features = encode_qa(
            examples, self.tokenizer, self.task, recipe.max_length, recipe.doc_stride, training=training
        )
        if not training:
            return features
        # Where tokens stand in the text is for answers only, and would be most of the file.
        return [{name: feature[name] for name in _TRAINING_COLUMNS} for feature in features]

    def collate(self, features: Sequence[Feature], *, streams: Sequence[int] | None) -> Batch:
        from pmlm_core.tasks.encode_qa import collate_qa

        return collate_qa(features, self.tokenizer.special_ids.pad)

    def infer(self, model: nn.Module, batch: Batch, *, num_beams: int) -> list[Any]:
        positions = ("start_positions", "end_positions")
        output = model(**{name: tensor for name, tensor in batch.items() if name not in positions})
        lengths = batch["attention_mask"].sum(1).tolist()
        start_BN, end_BN = output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()
        return [(start_BN[row, :n], end_BN[row, :n]) for row, n in enumerate(lengths)]

    def predictions(self, examples: Sequence[Any], features: Any, outputs: Sequence[Any]) -> dict[str, Prediction]:
        from pmlm_core.tasks.answers import answers_of, with_threshold

        windows = (feature for number in range(len(features)) for feature in features.rows([number]))
        answers = answers_of(examples, windows, outputs, can_be_unanswerable=self.task.can_be_unanswerable)
        return {example.id: with_threshold(answer) for example, answer in zip(examples, answers, strict=True)}


class Generations(_Base):
    """Generation: one feature an example."""

    def encode(self, examples: Sequence[Any], *, training: bool) -> list[Feature]:
        from pmlm_core.tasks.encode_seq2seq import encode_seq2seq

        return encode_seq2seq(examples, self.tokenizer, self.recipe.max_length, self.recipe.max_target_length)

    def collate(self, features: Sequence[Feature], *, streams: Sequence[int] | None) -> Batch:
        from pmlm_core.tasks.encode_seq2seq import collate_seq2seq

        rows = [{name: list(ids) for name, ids in feature.items()} for feature in features]
        return collate_seq2seq(
            rows, self.tokenizer.special_ids, target_mask_prob=self.recipe.target_mask_prob, streams=streams
        )

    def infer(self, model: nn.Module, batch: Batch, *, num_beams: int) -> list[Any]:
        search = decoding(self.recipe, num_beams) | (WITHOUT_BEAMS if num_beams == 1 else {})
        return model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **search).tolist()  # type: ignore[operator]

    def predictions(self, examples: Sequence[Any], features: Any, outputs: Sequence[Any]) -> dict[str, Prediction]:
        from pmlm_core.tasks.encode_seq2seq import decode_targets

        texts = decode_targets(outputs, self.tokenizer)
        return {example.id: text for example, text in zip(examples, texts, strict=True)}


def decoding(recipe: Recipe, num_beams: int) -> dict[str, Any]:
    """The recipe's way to decode, as `generate` and a generation configuration take it."""
    search: dict[str, Any] = {
        "max_new_tokens": recipe.max_target_length,
        "min_new_tokens": recipe.min_target_length,
        "no_repeat_ngram_size": recipe.no_repeat_ngram_size,
        "do_sample": False,
        "num_beams": num_beams,
    }
    return search | (of_beams(recipe.length_penalty) if num_beams > 1 else {})


def of_beams(length_penalty: float) -> dict[str, Any]:
    """A search by beams ends when no beam can win any more: with a large penalty a longer text may still overtake."""
    return {"length_penalty": length_penalty, "early_stopping": "never"}


WITHOUT_BEAMS: dict[str, Any] = {"length_penalty": 1.0, "early_stopping": False}
"""transformers' own, without which it complains of a search that has no use for them."""
