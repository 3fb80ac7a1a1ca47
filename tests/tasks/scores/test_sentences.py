"""Cutting into sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_core.tasks.scores.sentences import sentences


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("he left . she stayed .", ["he left .", "she stayed ."]),
        ("he said `` no . '' she left .", ["he said `` no . ''", "she left ."]),
        ("Mr. J. Smith of the U.S. paid $3.50. He left.", ["Mr. J. Smith of the U.S. paid $3.50.", "He left."]),
        ("dr. who met mr. x. then he left.", ["dr. who met mr. x. then he left."]),
        ("A pause ... and on. End", ["A pause ... and on.", "End"]),
        ('"Why?" he asked. (He left.) Fine.', ['"Why?" he asked.', "(He left.)", "Fine."]),
        (
            "It is at bbc.com. It cost 3.5. So e.g. this, Ph.D. and all.",
            ["It is at bbc.com.", "It cost 3.5.", "So e.g. this, Ph.D. and all."],
        ),
        ("you and I. They.", ["you and I.", "They."]),
        ("first line\nsecond line\r\n\n third.", ["first line", "second line", "third."]),
        ("猫がいる。犬もいる！", ["猫がいる。", "犬もいる！"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_cuts(text, cut):
    assert sentences(text) == cut


@given(st.text(alphabet="aB.!?\"') \n。i", max_size=40))
def test_nothing_is_lost(text):
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(each == each.strip() != "" for each in found)
