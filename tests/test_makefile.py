"""What `make clean` takes away and what it leaves."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_clean_removes_compiled_loops_and_no_source(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("pmlm_core/corpus", "pipelines", "tune_spaces", "benchmarks", "tests", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    compiled = tmp_path / "pmlm_core/corpus/__pycache__/masking._mask-130.py311.nbi"
    kept = [tmp_path / "pmlm_core/corpus/masking.py", tmp_path / "outputs/mine/model.safetensors"]
    for path in (compiled, tmp_path / "outputs/demo/blocks.arrow", *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not compiled.parent.exists()
    assert not (tmp_path / "outputs/demo").exists()
    assert all(path.exists() for path in kept)
