"""What a finished seed leaves is on the disk before the checkpoints that could make it again are removed."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from finetuning_data import make_checkpoint, options_for, write_reviews

from pipelines.finetune import conclude
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.run import run
from pipelines.finetune.rundir import MODEL, SCORES


def test_model_and_scores_are_forced_to_disk_before_the_checkpoints_go(
    tmp_path: Path, sample_tokenizer_dir: str, monkeypatch: pytest.MonkeyPatch
):
    model = make_checkpoint(tmp_path / "model", sample_tokenizer_dir)
    reviews = write_reviews(tmp_path / "reviews")
    forced: dict[int, tuple[int, int]] = {}
    really, remove, missing = os.fsync, shutil.rmtree, list[str]()

    def fsync(handle: int) -> None:
        really(handle)
        state = os.fstat(handle)
        forced[state.st_ino] = (state.st_size, state.st_mtime_ns)

    def rmtree(path: Any, *args: Any, **kwargs: Any) -> None:
        run_folder = Path(path).parent
        if Path(path).name == "checkpoints" and (run_folder / SCORES).exists():
            kept = [run_folder, run_folder / SCORES, run_folder / MODEL, *(run_folder / MODEL).iterdir()]
            now = {each: each.stat() for each in kept}
            missing.extend(each.name for each, s in now.items() if forced.get(s.st_ino) != (s.st_size, s.st_mtime_ns))
            missing.append("looked")
        remove(path, *args, **kwargs)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(conclude.shutil, "rmtree", rmtree)
    run(FinetuneConfig(**options_for("classification", model, reviews, tmp_path / "out", num_train_epochs=1)))
    assert missing == ["looked"]
