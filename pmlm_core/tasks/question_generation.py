"""Question generation: a passage and an answer in, the question out. SQuAD 1.1 as split by Du et al. (2017).

The source is `ANSWER [SEP] PASSAGE`, the whole passage of the question and its first listed answer, each as written
(the "[SEP]" is text like any other). UniLM's authors put passage and answer together in the other order; here the
answer comes first, because a source that is too long is cut at its end and must not lose it. The target is the
question, white space stripped.

References: where the published lower-cased lines lie beside the JSON files or in `processed/` (`tgt-dev.txt`,
`tgt-test.txt`, a line a question in the same order), they are what is scored against; else the question as written.
Questions of one source are scored as one example (`scoring.by_source`).

Zhao et al.'s (2018) split is Du's with dev and test exchanged: task `squad_qg_reversed`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from pmlm_core import storage
from pmlm_core.errors import DataError
from pmlm_core.tasks.base import BadRow, Recipe, SourceTarget, Task
from pmlm_core.tasks.fields import text_of
from pmlm_core.tasks.files import HUB, SPLIT_NAMES, find_files, folder_of, name_patterns
from pmlm_core.tasks.lines import lines
from pmlm_core.tasks.rows import Row, RowError, as_examples
from pmlm_core.tasks.seq2seq import generation_task
from pmlm_core.tasks.squad import answers_in, question_rows

SEPARATOR = " [SEP] "
RECIPE = Recipe(
    batch_size=48,
    learning_rate=2e-5,
    warmup_ratio=0.1,
    weight_decay=0.01,
    num_train_epochs=16,
    max_length=464,
    max_target_length=48,
    label_smoothing=0.1,
    num_beams=8,
    length_penalty=1.3,
)
_REVERSED = {"train": "train", "dev": "test", "test": "dev"}


def question_generation_task(name: str) -> Task:
    """The task "squad_qg" (Du's split) or "squad_qg_reversed" (Zhao's)."""
    swapped = name == "squad_qg_reversed"
    return generation_task(name, partial(_read, name, swapped), RECIPE, question_generation=True)


def _read(name: str, swapped: bool, data_dir: str, split: str) -> Iterator[SourceTarget | BadRow]:
    kept_as = _REVERSED[split] if swapped else split
    what = f"split '{split}' of task '{name}'" + (" (the other split's file: dev and test change places)" * swapped)
    patterns = name_patterns(SPLIT_NAMES[kept_as], (".json",))
    files = find_files(data_dir, patterns, what=what, folders=("", "du2017", "raw"))
    return as_examples(question_rows(files[0]), partial(_example, _references(data_dir, files[0], kept_as), set()))


def _references(data_dir: str, file: str, split: str) -> Sequence[str] | None:
    """The published lines of the split's questions, if they are there.

    Raises:
        DataError: their number is not that of the questions.
    """
    if data_dir.startswith(HUB):
        return None
    beside = folder_of(file)
    for folder in (beside, storage.join(beside, "processed")):
        place = storage.join(folder, f"tgt-{split}.txt")
        if storage.exists(place):
            found = [line.strip() for line in lines(place)]
            number = sum(1 for _ in question_rows(file))
            if len(found) != number:
                raise DataError(f"{place} has {len(found)} lines, but {file} has {number} questions; remove the lines")
            return found
    return None


def _example(references: Sequence[str] | None, seen: set[str], row: Row, place: int) -> SourceTarget:
    fields = row.fields
    context, question = text_of(fields, "context"), text_of(fields, "question").strip()
    if not question:
        raise RowError("empty target", "field 'question' is empty")
    answers, _ = answers_in(fields.get("answers") or [], context)
    if not answers:
        raise RowError("no answer", "field 'answers' is empty")
    reference = references[place] if references else question
    source = answers[0][0].strip() + SEPARATOR + context
    identifier = str(fields.get("id") or place)
    if identifier in seen:
        raise RowError("duplicate id", f"id '{identifier}' stands twice")
    seen.add(identifier)
    return SourceTarget(identifier, row.number, source, question, (reference,))
