"""Extractive question answering: examples to windows over their passages, windows to a batch (docs/method.md, 6)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.tasks.base import QaExample, Task
from pmlm_core.tasks.encode_text import pad

Feature = dict[str, Any]
MAX_QUESTION_TOKENS = 64
"""A longer question loses its end, as in BERT's run_squad; so that a passage always has room, half of it is the limit
where max_length is small."""
OUTSIDE = -1
"""Offset of a token that is not the passage's."""


@dataclass(frozen=True)
class Passage:
    """A passage's tokens: ids, and where each stands in its text (`TextTokenizer.encode_with_offsets`)."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def tokens_of(self, start: int, end: int) -> tuple[int, int] | None:
        """First and last token of `text[start:end]`: those that begin and end there, or else the outermost that have a
        character of it; None if there is none."""
        stands = self.starts < self.ends
        touching = stands & (self.ends > start) & (self.starts < end)
        if not touching.any():
            return None
        begins, finishes = touching & (self.starts == start), touching & (self.ends == end)
        first = int((begins if begins.any() else touching).argmax())
        last = len(stands) - 1 - int((finishes if finishes.any() else touching)[::-1].argmax())
        return first, max(first, last)


def encode_qa(
    examples: Sequence[QaExample],
    tokenizer: TextTokenizer,
    task: Task,
    max_length: int,
    doc_stride: int,
    training: bool,
) -> list[Feature]:
    """Encode `[SOS] question [EOS] passage [EOS]`, segments 0 and 1, in one window or several.

    Args:
        max_length: of a window, special tokens included.
        doc_stride: tokens by which the next window of a long passage starts later; 0 to cut the passage off. No token
            is left out: windows move on by their room at most.
        training: whether to mark the answer, the first one of each example.

    Returns:
        One feature a window, those of one example together and in order:
        "input_ids", "token_type_ids"; "example", the place of the example among `examples`; "passage_token", the number
        of the window's first passage token in the passage; "offsets_start", "offsets_end", for every token the
        characters that it stands for in the original passage, -1 outside the passage; and in training
        "start_position", "end_position", first and last token of the answer, 0 ([SOS]) where the window does not hold
        the whole answer.

    Raises:
        ConfigError: max_length leaves no room.
        DataError: training on a question without an answer in a task whose questions all have one, or on an answer
            that lies outside the passage.
    """
    if max_length < 5:
        raise ConfigError(f"max_length {max_length} leaves no room for question and passage; give 5 at least")
    special = tokenizer.special_ids
    limit = min(MAX_QUESTION_TOKENS, (max_length - 3) // 2)
    passages: dict[str, Passage] = {}  # the questions about a passage stand together
    features = []
    questions = tokenizer.encode([example.question for example in examples])
    for index, (example, question_ids) in enumerate(zip(examples, questions, strict=True)):
        if example.context not in passages:
            passages[example.context] = Passage(*tokenizer.encode_with_offsets(example.context))
        passage = passages[example.context]
        question = question_ids[:limit].tolist()
        answer = _answer_tokens(example, passage, task) if training else None
        before, room = len(question) + 2, max_length - len(question) - 3
        for first, stop in _windows(len(passage.ids), room, doc_stride):
            outside = [OUTSIDE] * before
            feature: Feature = {
                "input_ids": [special.sos, *question, special.eos, *passage.ids[first:stop].tolist(), special.eos],
                "token_type_ids": [0] * before + [1] * (stop - first + 1),
                "example": index,
                "passage_token": first,
                "offsets_start": [*outside, *passage.starts[first:stop].tolist(), OUTSIDE],
                "offsets_end": [*outside, *passage.ends[first:stop].tolist(), OUTSIDE],
            }
            if training:
                holds = answer is not None and first <= answer[0] and answer[1] < stop
                feature["start_position"] = before + answer[0] - first if answer is not None and holds else 0
                feature["end_position"] = before + answer[1] - first if answer is not None and holds else 0
            features.append(feature)
    return features


def _windows(tokens: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """First token and end of every window; one, perhaps empty, for a passage that fits."""
    first = 0
    while True:
        yield first, min(first + room, tokens)
        if not stride or first + room >= tokens:
            return
        first += min(stride, room)


def _answer_tokens(example: QaExample, passage: Passage, task: Task) -> tuple[int, int] | None:
    where = f"task {task.name}, row {example.row} (id {example.id})"
    if not example.answers or example.is_impossible:
        if not task.can_be_unanswerable:
            raise DataError(
                f"{where}: no answer to train on, and this task has no unanswerable questions; leave it out"
            )
        return None
    text, start = example.answers[0]
    if not example.context.startswith(text, start):
        raise DataError(f"{where}: answer {text!r} is not at character {start} of the passage; correct answer_start")
    return passage.tokens_of(start, start + len(text))


def collate_qa(features: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Pad windows on the right to the longest of them.

    Returns:
        int64 "input_ids", "attention_mask", "token_type_ids" [B, N]; and of training windows "start_positions",
        "end_positions" [B].
    """
    batch = pad(features, pad_id)
    for name in ("start_position", "end_position"):
        if all(feature.get(name) is not None for feature in features):
            batch[f"{name}s"] = torch.tensor([int(feature[name]) for feature in features])
    return batch
