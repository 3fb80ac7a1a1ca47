"""What computes each score, with version, tokenization and options: stored beside the figures."""

import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

from pmlm_core.errors import ConfigError
from pmlm_core.tasks.scores.meteor import why_not

_QUESTIONS = (
    "an example is a source (lower-cased, passage and answer), its last prediction against all of its questions, as in"
    " UniLM's unilm-v1/src/qg/eval.py; both sides lower-cased, Penn Treebank spellings undone, every punctuation mark a"
    " token"
)


def describe(*names: str) -> dict[str, str]:
    """A sentence for each scorer's name.

    Raises:
        ConfigError: a name is unknown.
    """
    if unknown := [name for name in names if name not in _DESCRIBED]:
        raise ConfigError(f"unknown scorer {', '.join(map(repr, unknown))}; there are {', '.join(_DESCRIBED)}")
    return {name: _DESCRIBED[name]() for name in names}


_PACKAGES = ("scikit-learn", "scipy", "rouge-score", "nltk", "sacrebleu", "pycocoevalcap")
_PACKAGE = re.compile(rf"\b({'|'.join(_PACKAGES)}) (?:\(not installed\)|\d[\w.+]*)")
_LEFT_OUT = "left out"


def without_versions(text: str) -> str:
    """A scorer's sentence without the versions of packages: another of those is the same scorer.

    >>> without_versions("METEOR 1.5 -l en -norm, Java program of pycocoevalcap 1.2; percent")
    'METEOR 1.5 -l en -norm, Java program of pycocoevalcap; percent'
    """
    return _PACKAGE.sub(r"\1", text)


def others(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Names of scorers that both have, and that are not the same; one that a machine lacks is none of its.

    >>> others({"f1": "F1; scipy 1.2", "meteor": "METEOR"}, {"f1": "F1; scipy 1.3", "meteor": "METEOR: left out"})
    []
    """
    both = [name for name in ours if name in theirs and _LEFT_OUT not in ours[name] + theirs[name]]
    return [name for name in both if without_versions(ours[name]) != without_versions(theirs[name])]


def _package(name: str) -> str:
    assert name in _PACKAGES
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed)"


def _sklearn(what: str) -> Callable[[], str]:
    return lambda: f"{what}; {_package('scikit-learn')}; percent"


def _scipy(what: str) -> Callable[[], str]:
    return lambda: f"{what}, 0 if either side is constant; {_package('scipy')}; percent"


def _squad() -> str:
    return (
        "exact match and F1 by the rules of the official evaluate-v1.1 and evaluate-v2.0: lower case, ASCII"
        " punctuation, articles and extra white space out, best over answers; own implementation; percent"
    )


def _rouge() -> str:
    return (
        f"ROUGE F1, mean over examples; {_package('rouge-score')}; lower case, a-z and 0-9 only, Porter stems"
        f" ({_package('nltk')}); rougeL: whole text, rougeLsum: by sentences, one a line, text without line breaks cut"
        " by rule; several references: the best for each example and figure; percent"
    )


def _rouge_l_captions() -> str:
    return (
        f"ROUGE-L of coco-caption as in Du et al. (2017): beta 1.2, no stems, {_QUESTIONS}; several references: highest"
        " precision and highest recall; mean over examples; own implementation; percent"
    )


def _bleu() -> str:
    return (
        f"BLEU-4 over the corpus, no smoothing, closest reference length; {_package('sacrebleu')} with tokenize=none;"
        f" {_QUESTIONS}; percent"
    )


def _meteor() -> str:
    if reason := why_not():
        return f"METEOR 1.5: {_LEFT_OUT}, {reason}"
    return f"METEOR 1.5 -l en -norm, Java program of {_package('pycocoevalcap')}; {_QUESTIONS}; percent"


_DESCRIBED: dict[str, Callable[[], str]] = {
    "accuracy": _sklearn("accuracy"),
    "f1": _sklearn("F1 of class '1', 0 if undefined"),
    "f1_macro": _sklearn("mean of the classes' F1, 0 where undefined"),
    "matthews": _sklearn("Matthews' correlation coefficient, 0 if either side is constant"),
    "pearson": _scipy("Pearson's correlation"),
    "spearman": _scipy("Spearman's rank correlation, mean ranks for ties"),
    "squad": _squad,
    "rouge": _rouge,
    "rouge_l_captions": _rouge_l_captions,
    "bleu": _bleu,
    "meteor": _meteor,
}
