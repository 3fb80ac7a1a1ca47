"""What many tests share: a little prose, a tokenizer trained on it, one Ray."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# Before torch is imported: small models on two threads spend their time waiting for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available() and find_spec("triton") is not None:
    # Triton decides on being imported, which transformers' models do, whether it compiles or interprets. The variable
    # goes again, so that nobody else's child processes see it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton  # noqa: F401

# The first call of a compiled loop takes seconds; a deadline would blame the example that met it.
settings.register_profile("pmlm", deadline=None)
settings.load_profile("pmlm")

PROSE = Path(__file__).parent / "data" / "prose.txt"


# The tests' runs are for stores of their own, not for the one of whoever runs them.
os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def sample_texts() -> list[str]:
    """The 239 longer paragraphs of a public-domain novel (tests/data/README.md), in order."""
    paragraphs = PROSE.read_text(encoding="utf-8").split("\n\n")
    return [paragraph.strip() for paragraph in paragraphs if len(paragraph) > 150]


@pytest.fixture(scope="session")
def sample_tokenizer_dir(sample_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a cased unigram tokenizer with 1000 pieces. Read it only."""
    from pmlm_core.corpus.tokenizer import train

    folder = tmp_path_factory.mktemp("sample") / "tokenizer"
    train(sample_texts, vocab_size=1000, seed=0).save(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray with two CPUs, started by the first test that asks for it and shared by all."""
    import ray

    from pipelines.cluster import connect

    connect(num_cpus=2)
    yield
    ray.shutdown()
