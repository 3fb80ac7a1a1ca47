"""Options of `pmlm preprocess`. Only what decides the blocks enters their fingerprint; see `shard_options`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError

if TYPE_CHECKING:
    from pmlm_core.corpus.shard_job import ShardOptions


@dataclass(frozen=True)
class PreprocessConfig:
    """Everything `pmlm preprocess` can be told. The same command again does only what is missing."""

    needs: ClassVar[tuple[str, ...]] = ("inputs", "tokenizer", "output_dir")

    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs of text; local, s3:// or gs://; plain, .gz or .zst."""
    tokenizer: str = ""
    """Folder made by `pmlm tokenizer`, a SentencePiece .model, or a BERT vocab.txt or tokenizer.json."""
    output_dir: str = ""
    """Folder for the blocks; local (seen by every machine of the cluster), s3:// or gs://."""

    input_format: Literal["auto", "text_lines", "text_blocks", "text_files", "jsonl", "parquet", "wikitext"] = "auto"
    """Form of the input: a document a line, blank-line block, file, JSON line, Parquet record or WikiText article."""
    text_field: str = "text"
    """Field (JSON lines) or column (Parquet) that holds the text."""
    max_document_bytes: int = 64 << 20
    """A longer document is set aside rather than held in memory."""
    strict: bool = False
    """Stop at the first thing that cannot be read, instead of setting it aside."""

    max_length: int = 512
    """Tokens of a window [SOS] S1 [EOS] S2 [EOS], specials included."""
    documents_share_windows: bool = True
    """Whether a window may hold the end of one document and the start of the next."""
    views: int = 4
    """Independent maskings of every window; epoch e of pre-training uses view e mod views."""
    mask_prob: float = 0.15
    """Share of the maskable positions to mask (docs/method.md, 2)."""
    block_prob: float = 0.4
    """Probability that a step masks a block of several tokens rather than one."""
    min_block: int = 2
    """Shortest such block."""
    max_block: int = 6
    """Longest such block."""
    validation_fraction: float = 0.005
    """Share of the text held out for validation, by a hash of content: whole documents, sections of long ones."""
    seed: int = 0
    """Seed of all draws: segment borders, masks, corruption, what is held out."""

    piece_bytes: int = 32 << 20
    """Text that one task reads and one shard holds; big files are cut, small ones grouped."""
    num_workers: int | None = None
    """Tasks at a time, one CPU each; left out, all CPUs there are. Does not change the output."""

    def validate(self) -> None:
        """Refuse what cannot work before anything starts.

        Raises:
            ConfigError: with the option, its value and what it may be.
        """
        for name, what in (
            ("inputs", "the text to read, for example --inputs 'my_text/*.jsonl.zst'"),
            ("tokenizer", "what `pmlm tokenizer` made, a .model or a vocab.txt"),
            ("output_dir", "the folder for the blocks"),
        ):
            if not getattr(self, name):
                raise ConfigError(f"pmlm preprocess needs --{name}: {what}")
        if not all(isinstance(text, str) and text.strip() for text in self.inputs):
            raise ConfigError("inputs holds an empty name; name files, folders or globs")
        check_numbers(self, ["max_length"], least=5, most=65_535)
        check_numbers(self, ["views"], least=1, most=1000)
        check_numbers(self, ["piece_bytes"], least=1 << 16, most=1 << 30)
        check_numbers(self, ["max_document_bytes"], least=1, most=1 << 30)
        check_numbers(self, ["num_workers"], least=1, most=1_000_000)
        check_numbers(self, ["min_block", "max_block"], least=1, most=255)
        if self.min_block > self.max_block:
            raise ConfigError(f"min_block {self.min_block} is greater than max_block {self.max_block}")
        check_numbers(self, ["mask_prob"], above=0, below=1, hint=" (the paper: 0.15)")
        check_numbers(self, ["block_prob"], least=0, most=1, hint=" (the paper: 0.4)")
        check_numbers(self, ["validation_fraction"], least=0, below=1)
        if not self.text_field:
            raise ConfigError("text_field is empty; it names the field or column that holds the text")

    def shard_options(self) -> "ShardOptions":
        """The options that decide the blocks."""
        from pmlm_core.corpus.formats import InputFormat
        from pmlm_core.corpus.shard_job import ShardOptions

        return ShardOptions(
            fmt=InputFormat(self.input_format, self.text_field, self.max_document_bytes),
            max_length=self.max_length,
            documents_share_windows=self.documents_share_windows,
            views=self.views,
            mask_prob=self.mask_prob,
            block_prob=self.block_prob,
            min_block=self.min_block,
            max_block=self.max_block,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
        )
