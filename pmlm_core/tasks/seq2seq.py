"""Source-to-target generation from JSON lines or Parquet: `src` and `tgt`, optional `references` and `id`.

Each of the two is a text or a list of tokens (joined by spaces), as in UniLM's kit. The names that the Hugging Face
data sets of summarization use are understood too.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pmlm_core.errors import DataError
from pmlm_core.tasks import scoring, submission
from pmlm_core.tasks.base import BadRow, Recipe, SourceTarget, Task
from pmlm_core.tasks.fields import checked, text_or_tokens
from pmlm_core.tasks.files import find_files
from pmlm_core.tasks.rows import Row, RowError, as_examples, read_rows

FIELD_NAMES = (("src", "tgt"), ("article", "highlights"), ("document", "summary"), ("dialogue", "summary"))
FORMS = (".jsonl", ".json", ".parquet")

# The summaries' recipe with lengths that fit most texts; the paper has none for data of one's own.
RECIPE = Recipe(
    batch_size=64,
    learning_rate=7e-5,
    warmup_ratio=0.02,
    weight_decay=0.01,
    num_train_epochs=14,
    max_length=512,
    max_target_length=128,
    label_smoothing=0.1,
    target_mask_prob=0.4,
    num_beams=5,
    length_penalty=0.7,
    no_repeat_ngram_size=3,
)


def seq2seq_task(patterns: Mapping[str, Sequence[str]], *, several: bool = False, id_column: str | None = None) -> Task:
    """A generation task over files of pairs, scored by ROUGE.

    Args:
        patterns: of the files of "train", "dev", "test"; see `find_files`.
        id_column: field that identifies an example; None = "id" where there is one, else its place from 0.
    """
    return generation_task("seq2seq", partial(_read, patterns, several, id_column), RECIPE)


def generation_task(name: str, read: Any, recipe: Recipe, *, question_generation: bool = False) -> Task:
    """A generation task with a reader of its own. Files of "test" may lack targets.

    Args:
        question_generation: score as papers of question generation do (`scoring.score_texts`), not by ROUGE.
    """
    metrics = ("bleu", "meteor", "rouge_l_captions") if question_generation else ("rouge",)
    return Task(
        name=name,
        kind="generation",
        metric="bleu4" if question_generation else "rougeLsum",
        splits=("train", "dev", "test"),
        labelled=("train", "dev", "test"),
        recipe=recipe,
        read=read,
        score=partial(scoring.score_texts, question_generation=question_generation),
        write_predictions=submission.write_texts,
        scorers=partial(scoring.describe, *metrics),
        scored_by_source=question_generation,
    )


def _read(
    patterns: Mapping[str, Sequence[str]], several: bool, id_column: str | None, data_dir: str, split: str
) -> Iterator[SourceTarget | BadRow]:
    what = f"split '{split}' of task 'seq2seq'"
    return read_pairs(
        find_files(data_dir, patterns[split], what=what, several=several),
        id_column,
        needs_target=split != "test",
    )


def read_pairs(
    files: Sequence[str], id_column: str | None = None, *, needs_target: bool = True
) -> Iterator[SourceTarget | BadRow]:
    """Yield the pairs of files.

    Raises:
        DataError: the records have none of `FIELD_NAMES`.
    """
    columns = [id_column] if id_column else []
    optional = [*{each for pair in FIELD_NAMES for each in pair}, "references", "id"]
    return as_examples(read_rows(files, columns, optional), _Maker(id_column, needs_target))


@dataclasses.dataclass
class _Maker:
    """Makes examples of rows. The field names are those of the file's first record that has a source."""

    id_column: str | None
    needs_target: bool
    names: tuple[str, str] | None = None
    lacking: int = 0
    seen: set[str] = dataclasses.field(default_factory=set)

    def __call__(self, row: Row, place: int) -> SourceTarget:
        fields = row.fields
        source_name, target_name = self._names(row)
        if source_name not in fields:
            raise RowError("missing field", f"field '{source_name}' is missing")
        source = text_or_tokens(fields.get(source_name), f"field '{source_name}'")
        if not source.strip():
            raise RowError("empty source", f"field '{source_name}' is empty")
        value = fields.get(target_name)
        if value is None and self.needs_target:
            raise RowError("missing field", f"field '{target_name}' is missing")
        target = None if value is None else text_or_tokens(value, f"field '{target_name}'")
        if target is not None and not target.strip():
            raise RowError("empty target", f"field '{target_name}' is empty")
        return SourceTarget(self._id(fields, place), row.number, source, target, self._references(fields, target))

    def _names(self, row: Row) -> tuple[str, str]:
        if self.names is None:
            self.names = next((pair for pair in FIELD_NAMES if pair[0] in row.fields), None)
        if self.names is None:
            self.lacking += 1
            wanted = " or ".join(f"'{source}' and '{target}'" for source, target in FIELD_NAMES)
            found = ", ".join(row.fields) or "none"
            if self.lacking >= 20:
                raise DataError(f"{row.file}: no fields {wanted}; fields found: {found}")
            raise RowError("missing field", f"no fields {wanted}; fields found: {found}")
        return self.names

    def _references(self, fields: Mapping[str, Any], target: str | None) -> tuple[str, ...]:
        given = fields.get("references")
        if given is None:
            return () if target is None else (target,)
        if not isinstance(given, list) or not given:
            raise RowError("not a list", "field 'references' holds no list of texts")
        return tuple(text_or_tokens(each, "field 'references'") for each in given)

    def _id(self, fields: Mapping[str, Any], place: int) -> str:
        value = fields.get(self.id_column or "id", None if self.id_column else place)
        if value is None or isinstance(value, dict | list):
            raise RowError("missing field", f"field '{self.id_column or 'id'}' holds no id")
        identifier = checked(str(value), f"field '{self.id_column or 'id'}'")
        if identifier in self.seen:
            raise RowError("duplicate id", f"id '{identifier}' stands twice")
        self.seen.add(identifier)
        return identifier
