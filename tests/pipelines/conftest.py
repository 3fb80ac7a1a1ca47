"""Small blocks for every module, and one undisturbed run of two workers for all that disturb one and compare."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from predicting_data import HEADS, make_finetuned
from preprocessing_data import maker, write_corpus

from pipelines.preprocess.config import PreprocessConfig
from pipelines.upload.ending import UPLOADING
from tests.pipelines.tiny_blocks import make_blocks
from tests.pipelines.training_without_ray import config_for


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory, sample_texts: list[str], sample_tokenizer_dir: str) -> str:
    """Folder of finished blocks. Read it only."""
    return make_blocks(tmp_path_factory.mktemp("data") / "blocks", sample_texts, sample_tokenizer_dir)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, blocks: str) -> Path:
    """Folder of a run with the options of `pretrain_command`. Read it only."""
    from tests.pipelines.pretrain_command import OPTIONS
    from tests.pipelines.training_without_ray import train_in_processes

    return train_in_processes(config_for(blocks, tmp_path_factory.mktemp("undisturbed"), **OPTIONS), workers=2)


@pytest.fixture
def corpus(tmp_path: Path, sample_texts: list[str]) -> Path:
    """Files of text in several forms, for tests of preprocessing."""
    return write_corpus(tmp_path / "corpus", sample_texts)


@pytest.fixture
def config(corpus: Path, tmp_path: Path, sample_tokenizer_dir: str) -> Callable[..., PreprocessConfig]:
    """Makes configurations that preprocess that corpus, with changes."""
    return maker(corpus, tmp_path / "blocks", sample_tokenizer_dir)


@pytest.fixture(autouse=True)
def no_upload_outlives_its_test() -> Iterator[None]:
    """The end of a command in this process would end the process, taking it for one that nobody waits for."""
    yield
    for thread in threading.enumerate():
        if thread.name == UPLOADING:
            thread.join(30)
            assert not thread.is_alive(), "an upload of this test has not ended"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, sample_tokenizer_dir: str) -> dict[str, str]:
    """Folders of fine-tuned models with random weights, by kind. Read them only."""
    folder = tmp_path_factory.mktemp("models")
    return {kind: make_finetuned(folder / kind, sample_tokenizer_dir, kind) for kind in HEADS}


@pytest.fixture
def texts(sample_texts: list[str]) -> list[str]:
    """Of very different lengths."""
    return [text[: 10 + 37 * n % 150] for n, text in enumerate(sample_texts[:50])]
