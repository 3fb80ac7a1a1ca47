"""What `pmlm preprocess` will do, found out before Ray starts: the input, the plan, what is finished already."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipelines.console import warn
from pipelines.output_folder import check_output_dir
from pipelines.preprocess.config import PreprocessConfig
from pmlm_core import storage
from pmlm_core.corpus.copies import without_copies
from pmlm_core.corpus.ledger import LedgerRow, is_finished, load_ledger, piece_identity
from pmlm_core.corpus.manifest import MANIFEST, Manifest
from pmlm_core.corpus.pieces import Piece, plan_pieces
from pmlm_core.corpus.shard_job import ShardOptions, options_fingerprint
from pmlm_core.corpus.sources import LeftOut, Source, list_sources
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError

TOKENIZER = "tokenizer"
_THREADS = 16  # planning waits for disks and networks


@dataclass
class Job:
    """A checked configuration with its input planned.

    Attributes:
        finished: row of each finished piece, by its number in `pieces`.
        skipped: files that were left out without being read, and why.
        earlier: manifest that lies in the output folder, if any.
    """

    config: PreprocessConfig
    options: ShardOptions
    tokenizer: TextTokenizer
    fingerprint: str
    output_dir: str
    sources: list[Source]
    pieces: list[Piece]
    finished: dict[int, LedgerRow] = field(default_factory=dict)
    skipped: list[LeftOut] = field(default_factory=list)
    earlier: Manifest | None = None

    @property
    def missing(self) -> list[int]:
        """Numbers of the pieces that are still to be done."""
        return [number for number in range(len(self.pieces)) if number not in self.finished]


def prepare(config: PreprocessConfig) -> Job:
    """Check everything that can be checked without reading the text.

    Raises:
        ConfigError: options that contradict each other or the output folder.
        DataError: input or tokenizer that is not there.
    """
    config.validate()
    options = config.shard_options()
    tokenizer = TextTokenizer.load(config.tokenizer)
    if not len(tokenizer.ordinary_ids):
        raise DataError(f"{config.tokenizer}: the tokenizer has no ordinary tokens; train a bigger one")
    output_dir = storage.normalise(config.output_dir)
    _check_output(output_dir, tokenizer, config)
    skipped: list[LeftOut] = []
    listed = list_sources(config.inputs, options.fmt, skipped.append)
    _check_apart(output_dir, listed)
    fingerprint = options_fingerprint(options, tokenizer)
    with ThreadPoolExecutor(_THREADS) as pool:
        sources = without_copies(listed, skipped.append, map=pool.map)
        pieces = plan_pieces(sources, config.piece_bytes, map=pool.map)
        known = load_ledger(output_dir, map=pool.map)
        found = pool.map(lambda number: _finished(pieces[number], fingerprint, known, output_dir), range(len(pieces)))
        finished = {number: row for number, row in enumerate(found) if row is not None}
    earlier = _earlier_manifest(output_dir)
    _check_same_blocks(earlier, options, tokenizer, config.output_dir)
    return Job(config, options, tokenizer, fingerprint, output_dir, sources, pieces, finished, skipped, earlier)


def check_still_ours(job: Job) -> None:
    """Refuse to go on in a folder that another command has used since `prepare`, with other options.

    Raises:
        ConfigError: it holds blocks of other options or of another tokenizer by now.
    """
    _check_output(job.output_dir, job.tokenizer, job.config)
    _check_same_blocks(_earlier_manifest(job.output_dir), job.options, job.tokenizer, job.config.output_dir)


def _finished(piece: Piece, fingerprint: str, known: dict[str, LedgerRow], output_dir: str) -> LedgerRow | None:
    row = known.get(piece_identity(fingerprint, LedgerRow.describe(piece)))
    return row if row is not None and is_finished(output_dir, row) else None


def _earlier_manifest(output_dir: str) -> Manifest | None:
    if not storage.exists(storage.join(output_dir, MANIFEST)):
        return None
    try:
        return Manifest.load(output_dir)
    except DataError as error:  # it is about to be written anew, so it need not be readable
        warn(str(error))
        return None


def _check_same_blocks(
    earlier: Manifest | None, options: ShardOptions, tokenizer: TextTokenizer, output_dir: str
) -> None:
    """A run may be training on the blocks that are there: more input is welcome beside them, another form is not."""
    if earlier is None:
        return
    _check_same_tokenizer(earlier.tokenizer_fingerprint, tokenizer, output_dir)
    ours = {name: value for name, value in vars(options).items() if name != "fmt"}
    changed = [name for name in ours if name in earlier.config and earlier.config[name] != ours[name]]
    if changed:
        told = ", ".join(f"{name} was {earlier.config[name]} and is {ours[name]}" for name in changed)
        raise ConfigError(f"output_dir {output_dir} holds blocks made with other options ({told}); choose another one")


def _check_output(output_dir: str, tokenizer: TextTokenizer, config: PreprocessConfig) -> None:
    check_output_dir(output_dir)
    folder = storage.join(output_dir, TOKENIZER)
    there = _tokenizer_in(folder)
    if there is not None:
        _check_same_tokenizer(there.fingerprint, tokenizer, config.output_dir)


def _check_same_tokenizer(fingerprint: str, tokenizer: TextTokenizer, output_dir: str) -> None:
    if fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"output_dir {output_dir} holds blocks of another tokenizer (fingerprint {fingerprint[:12]}, this one is "
            f"{tokenizer.fingerprint[:12]}); choose another output_dir"
        )


def _tokenizer_in(folder: str) -> TextTokenizer | None:
    if not any(True for _ in storage.names_in(folder)):
        return None
    try:
        return TextTokenizer.load(folder)
    except DataError:  # a run was killed while it copied the files; this one copies them again
        return None


def _check_apart(output_dir: str, sources: list[Source]) -> None:
    folder = (storage.split_query(output_dir)[0] if storage.is_remote(output_dir) else output_dir) + "/"
    inside = next((source.uri for source in sources if source.uri.startswith(folder)), None)
    if inside:
        raise ConfigError(f"the input {inside} lies inside output_dir {output_dir}; keep input and output apart")
