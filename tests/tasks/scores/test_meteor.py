"""METEOR: the real Java program on a case computed by hand; and what is said when it cannot run."""

import os
import shutil
import time

import pytest

from pmlm_core.errors import DataError
from pmlm_core.tasks.scores import meteor as module
from pmlm_core.tasks.scores.meteor import meteor
from pmlm_core.tasks.scores.versions import describe


@pytest.mark.skipif(module.why_not() is not None, reason=f"METEOR cannot run here: {module.why_not()}")
def test_by_hand():
    """The published formula (alpha 0.85, beta 0.2, gamma 0.6, delta 0.75; stems weigh 0.6) over the sums of all counts.

    Content words weigh delta, function words the rest. Matched: cat, sat, mat (content), on, the (function); the
    (function), dogs as a stem (content); nothing of the empty text. Seven matches, one chunk: that of a text which
    matches from end to end, as the second does, is not counted.
    """
    predictions = ["a cat sat\non the mat", "the dogs", ""]
    references = [["the cat sat on the mat"], ["Ödön ||| ö", "the dog"], ["hello"]]
    matched = 0.75 * (3 + 0.6) + 0.25 * (2 + 1)
    precision = matched / (0.75 * 4 + 0.25 * 4)
    recall = matched / (0.75 * 5 + 0.25 * 4)
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert meteor(predictions, references) == pytest.approx(100 * mean * (1 - 0.6 * (1 / 7) ** 0.2))
    assert "METEOR 1.5 -l en -norm" in describe("meteor")["meteor"]


def put_java(folder, monkeypatch, script):
    """A stand-in for Java at the head of the PATH."""
    java = folder / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(module, "jar", lambda: folder / "meteor.jar")


def test_without_java(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "jar", lambda: tmp_path / "meteor.jar")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert meteor(["x"], [["x"]]) is None
    assert "METEOR is left out: Java is not installed" in caplog.text
    assert "left out, Java is not installed" in describe("meteor")["meteor"]


def test_without_the_extra(monkeypatch, caplog):
    monkeypatch.setattr(module, "jar", lambda: None)
    assert meteor(["x"], [["x"]]) is None
    assert "pip install 'pmlm[meteor]'" in caplog.text


def test_java_that_fails(tmp_path, monkeypatch, caplog):
    put_java(tmp_path, monkeypatch, "echo 'Error: Could not reserve enough space' >&2; exit 3")
    assert meteor(["x"], [["x"]]) is None
    assert "ended early (status 3): Error: Could not reserve enough space" in caplog.text


def test_answers_that_are_no_numbers(tmp_path, monkeypatch, caplog):
    put_java(tmp_path, monkeypatch, "while read line; do echo Exception; done")
    assert meteor(["x"], [["x"]]) is None
    assert "METEOR is left out: could not convert string to float" in caplog.text


@pytest.mark.skipif(shutil.which("sleep") is None, reason="needs sleep")
def test_a_program_that_hangs_is_ended(tmp_path, monkeypatch, caplog):
    put_java(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 200")
    monkeypatch.setattr(module, "TIMEOUT", 1.0)
    before = time.monotonic()
    assert meteor(["x"], [["x"]]) is None
    assert time.monotonic() - before < 60
    assert "ended early (status -9)" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_wrong_input():
    with pytest.raises(DataError, match="no examples"):
        meteor([], [])
