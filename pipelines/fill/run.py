"""`pmlm fill`: print the likeliest tokens for each [MASK], and each sentence with its masks filled."""

from pipelines.console import say, warn
from pipelines.fill.config import FillConfig
from pipelines.model_here import local_copy
from pmlm_core.model.filling import Candidate, Filler


def run(config: FillConfig) -> None:
    """Fill and print.

    Raises:
        CheckpointError: the folder holds no model, or one without its tokenizer.
        ConfigError: a text is too long for the model, or there is nothing at an address of a store.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    joined = False
    for filled in Filler(local_copy(config.model), warn=warn).fill(config.text, top_k=config.top_k):
        say(filled.text)
        for number, candidates in enumerate(filled.masks, 1):
            say(f"  [MASK] {number}  " + "  ".join(_shown(candidate) for candidate in candidates))
            joined = joined or not all(candidate.starts_word for candidate in candidates)
        say(f"  {filled.filled}")
    if joined:
        say("(+ marks a piece that joins what stands before it, with no space between)")


def _shown(candidate: Candidate) -> str:
    """A token and its probability; "+" marks one that goes on a word rather than starts it."""
    return f"{'' if candidate.starts_word else '+'}{candidate.text} {candidate.probability:.1%}"
