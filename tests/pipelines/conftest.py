"""Small blocks for every module, and one undisturbed run of two workers for all that disturb one and compare."""

from pathlib import Path

import pytest

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
