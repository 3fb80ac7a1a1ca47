"""One undisturbed run of two workers, for all tests that disturb one and compare."""

from pathlib import Path

import pytest

from tests.pipelines.tiny_blocks import make_blocks
from tests.pipelines.training_without_ray import config_for


@pytest.fixture(scope="session")
def two_worker_blocks(
    tmp_path_factory: pytest.TempPathFactory, sample_texts: list[str], sample_tokenizer_dir: str
) -> str:
    """Folder of blocks. Read it only."""
    return make_blocks(tmp_path_factory.mktemp("two-workers") / "blocks", sample_texts, sample_tokenizer_dir)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, two_worker_blocks: str) -> Path:
    """Folder of a run with the options of `pretrain_command`. Read it only."""
    from tests.pipelines.pretrain_command import OPTIONS
    from tests.pipelines.training_without_ray import train_in_processes

    return train_in_processes(
        config_for(two_worker_blocks, tmp_path_factory.mktemp("undisturbed"), **OPTIONS), workers=2
    )
