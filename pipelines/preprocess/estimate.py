"""The dry run: a sample of the input goes through the tokenizer here, and the rest is reckoned from it."""

import time

from pipelines.cluster import available_cpus
from pipelines.console import counted, say
from pipelines.preprocess.job import Job
from pipelines.quantities import count_text, duration, size_text
from pmlm_core.corpus.packing import FRAME
from pmlm_core.corpus.pieces import Piece
from pmlm_core.corpus.readers import read_documents
from pmlm_core.corpus.rejects import Document, ReadProgress
from pmlm_core.corpus.reports import place, rows_in
from pmlm_core.errors import DataError
from pmlm_core.model.traffic import block_bytes, mean_predictions

_SAMPLED_PIECES = 4
_SAMPLE_CHARACTERS = 1 << 20  # of each sampled piece
# Reading, packing, masking and writing beside tokenizing, as measured by benchmarks/preprocess.py.
_OVERHEAD = 1.5


def estimate(job: Job) -> None:
    """Print tokens, rows, disk space and time to expect.

    Raises:
        DataError: the sample holds no document.
    """
    step = max(1, len(job.pieces) // _SAMPLED_PIECES)
    text_bytes = tokens = consumed = seconds = 0.0  # of what was read for the sample
    documents = rejects = 0
    example = ""
    sampled = job.pieces[::step][:_SAMPLED_PIECES]
    for piece in sampled:
        characters = 0
        progress = ReadProgress()
        for found in read_documents(piece, job.options.fmt, progress):
            if not isinstance(found, Document):
                rejects += 1
                example = example or place(piece.spans[found.span], found)
                if rejects > 1000:
                    break
                continue
            text = found.text[: _SAMPLE_CHARACTERS - characters]
            whole = len(found.text) / len(text)  # what follows is of the part that was encoded
            started = time.perf_counter()
            tokens += whole * len(job.tokenizer.encode([text])[0])
            seconds += whole * (time.perf_counter() - started)
            text_bytes += whole * len(text.encode("utf-8", "replace"))
            characters += len(text)
            documents += 1
            if characters >= _SAMPLE_CHARACTERS:
                break
        consumed += _consumed(piece, progress)
    if not tokens or not consumed:
        why = f"the first of {rejects:,} rejects: {example}" if example else "it is empty"
        raise DataError(
            f"the sampled part, from {len(sampled)} of {counted(len(job.pieces), 'piece')}, holds no document ({why}); "
            "check --input_format and --text_field"
        )
    total = sum(piece.weight for piece in job.pieces)
    left = sum(job.pieces[number].weight for number in job.missing)
    all_tokens = total * tokens / consumed
    capacity = job.options.max_length - FRAME
    rows = all_tokens / capacity
    options = job.options
    slots = mean_predictions(
        options.max_length, options.mask_prob, options.block_prob, options.min_block, options.max_block
    )
    disk = rows * block_bytes(options.max_length, slots, job.tokenizer.vocab_size, options.views)
    workers = job.config.num_workers or available_cpus()
    takes = _OVERHEAD * seconds * left / consumed / workers
    reckoned = any(source.compression for source in job.sources)
    note = " (compressed files are taken to hold three times their size)" if reckoned else ""
    say(f"sampled {documents:,} documents, {size_text(text_bytes)}: {text_bytes / tokens:.2f} bytes a token")
    if rejects:
        say(f"{rejects} items of the sample would be set aside")
    say(f"about {size_text(total * text_bytes / consumed)} of text{note}")
    say(f"about {count_text(all_tokens)} tokens in {rows:,.0f} rows of {job.options.max_length}")
    say(f"about {size_text(disk)} of blocks with {job.options.views} views, in {job.output_dir}")
    say(
        f"about {duration(takes)} for {counted(len(job.missing), 'piece')} with {counted(workers, 'worker')}, and "
        "seconds to start Ray"
    )


def _consumed(piece: Piece, progress: ReadProgress) -> float:
    """How much of a piece's weight was read; weights count what stands around the text, too."""
    nbytes = 0.0
    for index, span in enumerate(piece.spans):
        if span.source.kind == "parquet":
            # Other columns weigh in and were not read, so rows are what tells the share.
            rows = progress.rows.get(index, 0)
            nbytes += span.weight * rows / rows_in(span) if rows else 0
        else:
            nbytes += progress.span_bytes[index]
    return nbytes
