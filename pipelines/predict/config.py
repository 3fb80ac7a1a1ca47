"""Options of `pmlm predict`. What is left out is taken from the fine-tuned folder."""

import os
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from pipelines.ranges import check_numbers
from pipelines.there import check_folder
from pmlm_core.addresses import absolute, is_remote
from pmlm_core.errors import ConfigError

_OPERATIONAL = frozenset({"model", "inputs", "output_dir", "strict", "num_workers", "use_gpu", "merge"})
"""Options that do not decide what a prediction is (the model's contents and the inputs do, by themselves)."""

COLUMNS = (
    "text_column",
    "text_pair_column",
    "question_column",
    "context_column",
    "source_column",
    "id_column",
)


@dataclass(frozen=True)
class PredictConfig:
    """Everything `pmlm predict` can be told. The same command again does only what is missing."""

    positional: ClassVar[str] = "inputs"
    needs: ClassVar[tuple[str, ...]] = ("model", "inputs", "output_dir")

    model: str = ""
    """Fine-tuned folder, as pmlm finetune leaves it: RUN/seed-0/model."""
    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs, local, s3:// or gs://: .jsonl, .tsv, .csv (plain, .gz or .zst), .parquet; for questions
    also SQuAD's .json."""
    output_dir: str = ""
    """Folder for the predictions; local (seen by every machine of the cluster), s3:// or gs://."""

    text_column: str | None = None
    """Column or field of the text; left out, as in fine-tuning, or "text"."""
    text_pair_column: str | None = None
    """Column or field of the second text; left out, as in fine-tuning, or "text_pair" where there is one."""
    question_column: str | None = None
    """Column or field of the question ("question")."""
    context_column: str | None = None
    """Column or field of the passage ("context")."""
    source_column: str | None = None
    """Column or field of what to generate from; left out, the first of "src", "source", "text", "article", "document",
    "dialogue"."""
    id_column: str | None = None
    """Column or field of the row's id; left out, "id" where there is one, else rows are called by their number."""
    max_row_bytes: int = 4 << 20
    """A longer row is set aside rather than held in memory."""
    strict: bool = False
    """Stop at the first bad row, instead of setting it aside in rejects.jsonl."""

    max_length: int | None = None
    """Tokens of the input, special tokens included; left out, as in fine-tuning."""
    doc_stride: int | None = None
    """Questions: tokens by which the windows of a long passage move on; left out, as in fine-tuning."""
    null_threshold: float | None = None
    """Questions that may have no answer: none is given where the null score is above the best span's by more; left out,
    by anything (0). Where the model's folder does not say whether they may have none, this option says so."""
    n_best: int = 0
    """Questions: number of answers that are listed with their probabilities."""
    max_target_length: int | None = None
    """Generation: tokens at most, closing [EOS] included; this and what follows is the model's own where left out."""
    min_target_length: int | None = None
    """Generation: tokens before [EOS] is allowed."""
    num_beams: int | None = None
    """Generation: beams of the search; 1 is greedy."""
    length_penalty: float | None = None
    """Generation: power of ((5 + length) / 6) that a beam's score is divided by."""
    no_repeat_ngram_size: int | None = None
    """Generation: n-grams of this size do not repeat; 0 allows it."""
    do_sample: bool | None = None
    """Generation: draw tokens instead of taking the likeliest; the same seed draws the same."""
    temperature: float | None = None
    """Sampling: logits are divided by this."""
    top_k: int | None = None
    """Sampling: number of the likeliest tokens that are drawn from; 0 for all."""
    top_p: float | None = None
    """Sampling: only the likeliest tokens that together have this probability."""
    seed: int | None = None
    """Of sampling; left out, 0."""

    batch_size: int = 32
    """Rows of one forward pass."""
    piece_rows: int = 2048
    """Rows of one output file: what one worker does at a time, and what is lost when it is killed."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the matrix products; auto takes bf16 where the processor computes in it."""
    num_workers: int | None = None
    """Workers of Ray; 1 works in this process. Left out: this process for what takes seconds, else all CPUs (GPUs).
    Does not change the output."""
    cpus_per_worker: int = 1
    """CPU threads of a worker. Another number may change the last digits of scores."""
    use_gpu: bool = False
    """One GPU for each worker."""
    merge: bool = True
    """Also join the files of all pieces into one, predictions.jsonl."""

    def validate(self) -> None:
        """Refuse what is out of range or contradicts itself; nothing is read from disk.

        Raises:
            ConfigError: with the option, its value and what it may be.
        """
        for name, what in (
            ("model", "the folder that `pmlm finetune` made, such as RUN/seed-0/model"),
            ("inputs", "the files to predict, for example --inputs 'files/*.jsonl'"),
            ("output_dir", "the folder for the predictions"),
        ):
            if not getattr(self, name):
                raise ConfigError(f"pmlm predict needs --{name}: {what}")
        if not all(isinstance(text, str) and text.strip() for text in self.inputs):
            raise ConfigError("inputs holds an empty name; name files, folders or globs")
        counts = ("batch_size", "piece_rows", "max_row_bytes", "num_workers", "cpus_per_worker", "num_beams")
        check_numbers(self, counts, least=1)
        check_numbers(self, ["max_length"], least=5)  # room for a token of each text beside special ones
        check_numbers(self, ["max_target_length"], least=2)
        least = ("doc_stride", "min_target_length", "no_repeat_ngram_size", "top_k", "n_best", "seed")
        check_numbers(self, least, least=0)
        check_numbers(self, ["temperature"], above=0)
        check_numbers(self, ["top_p"], above=0, most=1)

    def check_there(self) -> None:
        """Raises NotThereError where the model or an input is not there."""
        from pmlm_core.corpus.formats import InputFormat
        from pmlm_core.corpus.sources import list_sources

        check_folder("model", self.model, "give one that `pmlm finetune` made, such as RUN/seed-0/model")
        # What is there is listed once, later; what is not is a glob, or a mistake.
        unseen = [each for each in self.inputs if not is_remote(each) and not os.path.exists(absolute(each))]
        list_sources(unseen, InputFormat("text_lines"))

    def search(self) -> dict[str, Any]:
        """What was asked of decoding, in the words of transformers' `generate`; the rest is the model's own."""
        names = {"max_target_length": "max_new_tokens", "min_target_length": "min_new_tokens"}
        options = (
            *("max_target_length", "min_target_length", "num_beams", "length_penalty", "no_repeat_ngram_size"),
            *("do_sample", "temperature", "top_k", "top_p"),
        )
        return {names.get(name, name): value for name in options if (value := getattr(self, name)) is not None}

    def deciding(self) -> dict[str, Any]:
        """The options that decide what is written; two that are left out as what they then are."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _OPERATIONAL}
        return given | {"null_threshold": self.null_threshold or 0.0, "seed": self.seed or 0}
