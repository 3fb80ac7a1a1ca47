import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pmlm_core

SOURCE = Path(pmlm_core.__file__).parent
LOOP = """
from pmlm_core.jit import njit
from pmlm_core.called import STEP, called

@njit(nogil=True)
def loop(x):
    return called(x) + STEP
"""
CALLED = """
from pmlm_core.jit import njit

STEP = {step}

@njit(inline="always")
def called(x):
    return {factor} * x
"""


@pytest.fixture
def package(tmp_path):
    """A package of our name whose one loop calls a function and names a constant of another file."""
    package = tmp_path / "pmlm_core"
    package.mkdir()
    for name in ("__init__.py", "addresses.py", "jit.py"):
        shutil.copy(SOURCE / name, package)
    (package / "loop.py").write_text(LOOP)
    (package / "called.py").write_text(CALLED.format(step=1, factor=10))
    return package


def result(package, **variables):
    """What the loop makes of 1, in a process of its own; and whether it was compiled there."""
    command = "from pmlm_core.loop import loop; print(loop(1), sum(loop.stats.cache_misses.values()))"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    made = subprocess.run(
        [sys.executable, "-c", command],
        env={**environment, "PYTHONPATH": str(package.parent), **variables},
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    value, compiled = made.stdout.split()
    return int(value), bool(int(compiled))


def test_a_loop_is_compiled_anew_when_what_it_is_made_of_has_changed_and_not_otherwise(package):
    assert result(package) == (11, True)
    assert result(package) == (11, False)
    (package / "called.py").write_text(CALLED.format(step=2, factor=10))
    assert result(package) == (12, True), "a constant of another file is the old one"
    (package / "called.py").write_text(CALLED.format(step=2, factor=20))
    assert result(package) == (22, True), "a function of another file is the old one"
    (package / "addresses.py").touch()
    assert result(package) == (22, False)


def test_elsewhere_if_asked_to(package, tmp_path):
    assert result(package, NUMBA_CACHE_DIR=str(tmp_path / "kept")) == (11, True)
    assert {path.name[:6] for path in (tmp_path / "kept").iterdir()} == {"loops-"}
    assert not list(package.rglob("*.nbc"))
