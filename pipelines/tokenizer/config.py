"""Options of `pmlm tokenizer`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class TokenizerConfig:
    """Everything `pmlm tokenizer` can be told. Equal input and options give the same model to the byte."""

    needs: ClassVar[tuple[str, ...]] = ("inputs", "output_dir")

    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs of text; local, s3:// or gs://; plain, .gz or .zst."""
    output_dir: str = ""
    """Folder for the tokenizer; local, s3:// or gs://."""

    input_format: Literal["auto", "text_lines", "text_blocks", "text_files", "jsonl", "parquet", "wikitext"] = "auto"
    """Form of the input: a document a line, blank-line block, file, JSON line, Parquet record or WikiText article."""
    text_field: str = "text"
    """Field (JSON lines) or column (Parquet) that holds the text."""
    max_document_bytes: int = 64 << 20
    """A longer document is left out rather than held in memory."""

    vocab_size: int = 30_522
    """Pieces, the six special tokens included."""
    model_type: Literal["unigram", "bpe"] = "unigram"
    """Algorithm of SentencePiece."""
    cased: bool = True
    """Whether the model tells capital from small letters; false folds case in all text it ever reads."""
    character_coverage: float = 0.9995
    """Share of the characters of the sample that get a piece; 1.0 for small alphabets, 0.9995 with rare characters."""
    byte_fallback: bool = False
    """Spell characters without a piece as bytes (256 pieces) instead of [UNK]."""
    sample_bytes: int = 32 << 20
    """Text to train on, drawn at random from the input; SentencePiece takes some 20 times as much memory."""
    seed: int = 0
    """Seed of the sample."""
    training_threads: int = 16
    """Threads of SentencePiece; part of what decides the model, because the order of adding floats does."""

    num_workers: int | None = None
    """Tasks that read at a time, one CPU each; left out, all CPUs there are. Does not change the output."""

    def validate(self) -> None:
        """Refuse what cannot work before anything starts.

        Raises:
            ConfigError: with the option, its value and what it may be.
        """
        if not self.inputs:
            raise ConfigError("pmlm tokenizer needs --inputs: the text to read, for example 'my_text/*.jsonl.zst'")
        if not all(isinstance(text, str) and text.strip() for text in self.inputs):
            raise ConfigError("inputs holds an empty name; name files, folders or globs")
        if not self.output_dir:
            raise ConfigError("pmlm tokenizer needs --output_dir: the folder for the tokenizer")
        if not self.text_field:
            raise ConfigError("text_field is empty; it names the field or column that holds the text")
        check_numbers(self, ["vocab_size"], least=300 if self.byte_fallback else 16, most=1 << 24)
        check_numbers(self, ["sample_bytes"], least=1 << 10, most=1 << 36)
        check_numbers(self, ["max_document_bytes"], least=1, most=1 << 30)
        check_numbers(self, ["training_threads"], least=1, most=1024)
        check_numbers(self, ["num_workers"], least=1, most=1_000_000)
        check_numbers(self, ["character_coverage"], least=0.98, most=1)
