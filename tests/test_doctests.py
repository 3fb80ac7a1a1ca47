"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import pipelines
import pmlm_core
import tune_spaces

# Triton decides on being imported whether it interprets; tests/model import these as they need them.
APART = ("attention.tiled", "cross_entropy_tiled")


@pytest.mark.parametrize("package", [pmlm_core, pipelines, tune_spaces], ids=lambda package: package.__name__)
def test_examples_in_docstrings(package):
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    tried = 0
    for name in names:
        if any(part in name for part in APART):
            continue
        result = doctest.testmod(importlib.import_module(name))
        assert not result.failed, name
        tried += result.attempted
    assert tried > {"pmlm_core": 50, "pipelines": 10, "tune_spaces": 0}[package.__name__]
