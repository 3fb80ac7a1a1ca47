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
    for name in ("__init__.py", "addresses.py", "jit.py", "sources.py"):
        shutil.copy(SOURCE / name, package)
    (package / "loop.py").write_text(LOOP)
    (package / "called.py").write_text(CALLED.format(step=1, factor=10))
    return package


def result(package, before="", **variables):
    """What the loop makes of 1, in a process of its own; and whether it was compiled there."""
    command = f"{before}from pmlm_core.loop import loop; print(loop(1), sum(loop.stats.cache_misses.values()))"
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


def test_what_was_edited_while_a_process_ran_is_not_kept_under_its_name(package):
    edited = CALLED.format(step=1, factor=2000)
    edit = f"import pmlm_core.called, pathlib; pathlib.Path('pmlm_core/called.py').write_text({edited!r}); "
    assert result(package, before=edit) == (11, True)
    assert result(package) == (2001, True)


def test_where_machine_code_is_kept(package, tmp_path):
    kept = tmp_path / "kept"
    assert result(package, NUMBA_CACHE_DIR=str(kept)) == (11, True)
    (folder,) = kept.iterdir()
    assert folder.name.startswith("loops-")
    assert list(folder.rglob("*.nbc"))
    assert not list(package.rglob("*.nbc"))
    for name in ("beside", "elsewhere"):
        (tmp_path / name).write_text("a file where a folder would be")
    beside = package / "__pycache__"
    assert result(package, NUMBA_CACHE_DIR=str(tmp_path / "beside")) == (11, True)
    assert list(beside.rglob("*.nbc"))
    shutil.rmtree(beside)
    beside.write_text("a file where a folder would be")
    assert result(package, PMLM_CACHE=str(tmp_path / "cache")) == (11, True)
    assert list((tmp_path / "cache" / "loops").rglob("*.nbc"))
    nowhere = str(tmp_path / "elsewhere")
    assert result(package, PMLM_CACHE=nowhere, HOME=nowhere)[0] == 11


def test_code_of_old_versions_goes(package):
    folders = [package / "__pycache__" / f"loops-{number}" for number in range(30)]
    for age, folder in enumerate(folders):
        folder.mkdir(parents=True)
        os.utime(folder, (age, age))
    assert result(package) == (11, True)
    assert [folder.exists() for folder in folders] == [False] * 11 + [True] * 19


def test_a_package_in_an_archive_is_compiled_without_a_cache(package, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "pmlm_core")
    shutil.rmtree(package)
    assert result(package, PYTHONPATH=archive, HOME=str(tmp_path))[0] == 11
