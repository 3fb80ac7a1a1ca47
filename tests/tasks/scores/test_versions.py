"""What is written beside the figures."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from pmlm_core.errors import ConfigError
from pmlm_core.tasks.registry import TASKS, get_task
from pmlm_core.tasks.scores.versions import describe


def test_package_versions_and_options():
    found = describe("accuracy", "pearson", "rouge", "bleu")
    assert list(found) == ["accuracy", "pearson", "rouge", "bleu"]
    assert f"scikit-learn {version('scikit-learn')}" in found["accuracy"]
    assert f"scipy {version('scipy')}" in found["pearson"]
    assert f"rouge-score {version('rouge-score')}" in found["rouge"]
    assert "Porter stems" in found["rouge"]
    assert f"sacrebleu {version('sacrebleu')} with tokenize=none" in found["bleu"]
    assert all("percent" in text for text in found.values())


def test_questions_are_told_to_be_scored_by_source():
    """Figures of before, of each question by itself, are not comparable: their description says nothing of it."""
    for text in describe("bleu", "rouge_l_captions").values():
        assert "its last prediction against all of its questions" in text


def test_unknown_name():
    with pytest.raises(ConfigError, match="unknown scorer 'blue'; there are accuracy, f1,"):
        describe("bleu", "blue")


@pytest.mark.parametrize(
    "name", [name for name in TASKS if name not in ("classification", "regression", "qa", "seq2seq")]
)
def test_every_benchmark_says_what_scores_it(name):
    assert all(get_task(name).scorers().values())


def test_importing_is_cheap():
    """Nothing large comes in before a figure is asked for."""
    names = ["classification", "squad", "rouge", "bleu", "meteor", "versions", "baselines", "tokens", "sentences"]
    code = f"""
import importlib, sys
for name in {names}: importlib.import_module("pmlm_core.tasks.scores." + name)
large = ("torch", "numpy", "sklearn", "scipy", "nltk", "rouge_score", "sacrebleu")
print([name for name in large if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
