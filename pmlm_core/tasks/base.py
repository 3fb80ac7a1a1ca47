"""What a task is: which files it reads, what it predicts, how it is scored, and the recipe it is trained with.

Examples and predictions are plain data, one kind for each of three families; a task is these functions put together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["classification", "regression", "question_answering", "generation"]


@dataclass(frozen=True)
class TextExample:
    """A text or a pair of texts with a label.

    Attributes:
        id: of the example within its split, as official submissions want it.
        row: line or record in the file, from 1, for messages.
        text_b: None where the task has one text.
        label: one of the task's labels, a number for a regression, None where the file has none.
    """

    id: str
    row: int
    text_a: str
    text_b: str | None = None
    label: str | float | None = None


@dataclass(frozen=True)
class QaExample:
    """A question over a passage.

    Attributes:
        answers: (text, character offset in `context`) of every accepted answer; empty if unanswerable or not known.
        is_impossible: whether the passage holds no answer; None where the file does not say.
    """

    id: str
    row: int
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    is_impossible: bool | None = None


@dataclass(frozen=True)
class SourceTarget:
    """A source text and what is to be generated from it.

    Attributes:
        target: what training learns; None where the file has none.
        references: what a generated text is scored against; `(target,)` where the file names no others.
    """

    id: str
    row: int
    source: str
    target: str | None = None
    references: tuple[str, ...] = ()


Example = TextExample | QaExample | SourceTarget


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, and why; counted and reported, never silently dropped.

    Attributes:
        reason: a few words without values, for counting: "unknown label", "missing field".
        detail: a sentence that names file, row and field.
    """

    file: str
    row: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Answer:
    """A prediction of question answering.

    Attributes:
        text: cut from the original passage; "" for unanswerable.
        start: its character offset in the passage; -1 for unanswerable.
        score: of the best span (start logit plus end logit).
        null_score: score of "unanswerable", the least over the windows; None where the task has no such answer.
        n_best: the best spans, this one among them, best first: text, start, score, probability.
    """

    text: str
    start: int
    score: float
    null_score: float | None = None
    n_best: tuple[Mapping[str, Any], ...] = ()


Prediction = str | float | Answer
"""Label of a classification or text of a generation; value of a regression; answer of a question."""


@dataclass(frozen=True)
class Recipe:
    """Defaults of fine-tuning, the paper's for its tasks. Lengths in tokens, special tokens included.

    Attributes:
        max_length: of the whole input; of the source for a generation.
        max_target_length: closing [EOS] included; 0 where nothing is generated.
        doc_stride: tokens by which the windows of a long passage move on; 0 for cutting the input off.
        target_mask_prob: share of true target tokens replaced by [MASK] in training (target word-drop).
    """

    batch_size: int
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    num_train_epochs: int
    max_length: int
    max_target_length: int = 0
    doc_stride: int = 0
    label_smoothing: float = 0.0
    target_mask_prob: float = 0.0
    num_beams: int = 1
    length_penalty: float = 0.0
    min_target_length: int = 0
    no_repeat_ngram_size: int = 0


@dataclass(frozen=True)
class Task:
    """A benchmark, or a task of one's own.

    Attributes:
        name: as `--task` takes it: "rte", "squad2.0", "xsum".
        labels: names of the classes in the order of the model's outputs; empty for other kinds.
        metric: the figure of `score` by which epochs and trials are chosen; higher is better.
        splits: what can be read, the split for training first.
        labelled: the splits that come with labels.
        read: (data_dir, split) -> examples in the order of the file, bad rows among them.
        score: (examples, predictions by id) -> figures, the metric's among them.
        write_predictions: (folder, split, examples, predictions by id) -> the files written, in the official form. Only
            for the name of a whole test split have they the name of a submission.
        scorers: versions and options of whatever computes the scores; stored beside them.
        can_be_unanswerable: questions whose answer may be "none" (SQuAD v2.0).
        scored_by_source: examples of one source are scored as one (`scoring.by_source`).
        lead_sentences: first sentences of the source that a generation is held against.
    """

    name: str
    kind: Kind
    metric: str
    splits: tuple[str, ...]
    labelled: tuple[str, ...]
    recipe: Recipe
    read: Callable[[str, str], Iterator[Example | BadRow]]
    score: Callable[[Sequence[Any], Mapping[str, Any]], dict[str, float]]
    write_predictions: Callable[[str, str, Sequence[Any], Mapping[str, Any]], list[str]]
    scorers: Callable[[], Mapping[str, str]]
    labels: tuple[str, ...] = ()
    can_be_unanswerable: bool = False
    scored_by_source: bool = False
    lead_sentences: int = 1

    @property
    def train_split(self) -> str:
        return self.splits[0]

    @property
    def dev_split(self) -> str | None:
        """The labelled split that epochs are chosen by: the first one that is not trained on; None without one."""
        return next((split for split in self.splits[1:] if split in self.labelled), None)
