"""`pmlm tokenizer`: a SentencePiece model trained on a seeded sample of the corpus."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from pipelines.console import counted, made, say, warn
from pipelines.left_out import told_left_out
from pipelines.next_stage import next_stage
from pipelines.output_folder import check_output_dir
from pipelines.quantities import size_text
from pipelines.tokenizer.config import TokenizerConfig
from pmlm_core import storage
from pmlm_core.corpus.copies import without_copies
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import plan_pieces
from pmlm_core.corpus.sampling import Sample, Share, share_out
from pmlm_core.corpus.sources import LeftOut, Source, list_sources
from pmlm_core.corpus.tokenizer import TextTokenizer, train
from pmlm_core.errors import DataError

MANIFEST = "tokenizer_manifest.json"
_THREADS = 16  # planning waits for disks and networks
_JUDGED_PASSAGES = 500


@dataclass
class _Plan:
    fmt: InputFormat
    sources: list[Source]
    n_pieces: int
    shares: list[Share]


def run(config: TokenizerConfig) -> None:
    """Draw the sample, train, save the folder.

    Raises:
        ConfigError, DataError: what is wrong, where, and the way out; nothing is written then.
    """
    from pipelines.tokenizer.draw import draw

    config.validate()
    check_output_dir(config.output_dir)
    plan = _plan(config)
    _announce(config, plan)
    samples = draw(plan.shares, plan.fmt, config.seed, config.num_workers)
    passages = [passage for sample in samples for passage in sample.passages]
    if not passages:
        found = next((f"; {sample.example}" for sample in samples if sample.example), "")
        raise DataError(
            f"no document in the input ({counted(len(plan.sources), 'file')}){found}; check inputs, input_format and "
            "text_field"
        )
    rejects = _tell_rejects(samples)
    taken, read = sum(s.sample_bytes for s in samples), sum(s.read_bytes for s in samples)
    documents = sum(s.documents for s in samples)
    say(f"training on {size_text(taken)} of the {size_text(read)} read ({documents:,} documents)")
    tokenizer = train(
        passages,
        vocab_size=config.vocab_size,
        model_type=config.model_type,
        cased=config.cased,
        seed=config.seed,
        character_coverage=config.character_coverage,
        num_threads=config.training_threads,
        byte_fallback=config.byte_fallback,
    )
    _say_what_it_replaces(config.output_dir, tokenizer)
    tokenizer.save(config.output_dir)
    counts = {"documents": documents, "read_bytes": read, "sample_bytes": taken, "passages": len(passages)}
    _write_manifest(config, plan, tokenizer, counts, rejects)
    case = "cased" if config.cased else "uncased"
    made(f"{case} {config.model_type} tokenizer of {tokenizer.vocab_size:,} pieces", config.output_dir)
    _say_how_good(tokenizer, passages)


def leads_to(config: TokenizerConfig, recipe: str | None) -> str:
    """The command that makes blocks by this tokenizer, of the same text."""
    same = ("inputs", "input_format", "text_field", "max_document_bytes")
    handed = {**{name: name for name in same}, "tokenizer": "output_dir"}
    return next_stage("preprocess", "blocks", recipe, "tokenizer", config, handed)


def dry_run(config: TokenizerConfig) -> None:
    """Say what would be read and trained; reads no text."""
    config.validate()
    check_output_dir(config.output_dir)
    plan = _plan(config)
    _announce(config, plan)
    say(f"would train {config.vocab_size:,} {config.model_type} pieces on at most {size_text(config.sample_bytes)}")
    say(f"would need about {size_text(20 * config.sample_bytes)} of memory for it, and write {config.output_dir}")


def _plan(config: TokenizerConfig) -> _Plan:
    fmt = InputFormat(config.input_format, config.text_field, config.max_document_bytes)
    skipped: list[LeftOut] = []
    listed = list_sources(config.inputs, fmt, skipped.append)
    with ThreadPoolExecutor(_THREADS) as pool:
        sources = without_copies(listed, skipped.append, map=pool.map)
        if skipped:
            warn(told_left_out(skipped))
        pieces = plan_pieces(sources, map=pool.map)
    return _Plan(fmt, sources, len(pieces), share_out(pieces, config.sample_bytes, config.seed))


def _announce(config: TokenizerConfig, plan: _Plan) -> None:
    size = sum(source.size for source in plan.sources)
    which = "all" if len(plan.shares) == plan.n_pieces else f"{len(plan.shares):,}, drawn at random"
    say(
        f"{counted(len(plan.sources), 'file')}, {size_text(size)} as stored, in {counted(plan.n_pieces, 'piece')}, "
        f"of which {which} are read for a sample of at most {size_text(config.sample_bytes)}"
    )


def _tell_rejects(samples: list[Sample]) -> dict[str, int]:
    rejects: Counter[str] = Counter()
    for sample in samples:
        rejects.update(sample.rejects)
    if rejects:
        example = next(sample.example for sample in samples if sample.example)
        warn(f"{sum(rejects.values()):,} items are left out, for example {example}; `pmlm preprocess` will list them")
    return dict(sorted(rejects.items()))


def _say_what_it_replaces(output_dir: str, tokenizer: TextTokenizer) -> None:
    if not any(True for _ in storage.names_in(output_dir)):
        return
    try:
        there = TextTokenizer.load(output_dir)
    except DataError:
        return
    if there.fingerprint != tokenizer.fingerprint:
        warn(f"{output_dir} held another tokenizer, which this one replaces; blocks made with that one keep their copy")


def _say_how_good(tokenizer: TextTokenizer, passages: list[str]) -> None:
    judged = passages[:: max(1, len(passages) // _JUDGED_PASSAGES)]
    encoded = tokenizer.encode(judged)
    tokens = sum(map(len, encoded)) or 1
    unknown = sum(int((ids == tokenizer.special_ids.unk).sum()) for ids in encoded)
    characters = sum(map(len, judged))
    say(f"{characters / tokens:.2f} characters a token on its own sample, {unknown / tokens:.3%} of tokens unknown")


def _write_manifest(
    config: TokenizerConfig, plan: _Plan, tokenizer: TextTokenizer, counts: dict[str, int], rejects: dict[str, int]
) -> None:
    from pipelines.tracking.code_version import code_version

    manifest = {
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "special_ids": tokenizer.special_ids.as_dict(),
        "config": asdict(config),
        "code": code_version(),
        "inputs": [{"uri": source.uri, "bytes": source.size} for source in plan.sources],
        "counts": counts,
        "rejects": rejects,
    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    storage.write_bytes(storage.join(config.output_dir, MANIFEST), text.encode())
