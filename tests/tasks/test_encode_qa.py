"""Windows over passages: layout, strides, the way from an answer's characters to tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError, DataError
from pmlm_core.tasks.base import QaExample
from pmlm_core.tasks.encode_qa import MAX_QUESTION_TOKENS, collate_qa, encode_qa
from pmlm_core.tasks.registry import get_task

V1, V2 = get_task("squad1.1"), get_task("squad2.0")
SOS, PAD, EOS = 0, 1, 2
CONTEXT = "The Time Traveller  sat in his chair, and the Machine stood behind him."


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir: str) -> TextTokenizer:
    return TextTokenizer.load(sample_tokenizer_dir)


def question(answer: str | None = None, context: str = CONTEXT, text: str = "Where did he sit?") -> QaExample:
    answers = () if answer is None else ((answer, context.index(answer)),)
    return QaExample("q", 1, text, context, answers, answer is None)


def test_layout_of_a_short_passage(tokenizer):
    (window,) = encode_qa([question("his chair")], tokenizer, V1, 128, 64, training=True)
    asked, said = (ids.tolist() for ids in tokenizer.encode(["Where did he sit?", CONTEXT]))
    before = len(asked) + 2
    assert window["input_ids"] == [SOS, *asked, EOS, *said, EOS]
    assert window["token_type_ids"] == [0] * before + [1] * (len(said) + 1)
    for name in ("offsets_start", "offsets_end"):
        assert len(window[name]) == len(window["input_ids"])
        assert window[name][:before] == [-1] * before
        assert window[name][-1] == -1
        assert min(window[name][before:-1]) >= 0
    start, end = window["start_position"], window["end_position"]
    assert CONTEXT[window["offsets_start"][start] : window["offsets_end"][end]] == "his chair"
    assert (window["example"], window["passage_token"]) == (0, 0)
    (other,) = encode_qa([question("his chair")], tokenizer, V1, 128, 64, training=False)
    assert other == {name: value for name, value in window.items() if name not in ("start_position", "end_position")}


def test_an_answer_inside_a_token_takes_the_whole_token(tokenizer):
    context = "in 1893-1894, he sat."
    (window,) = encode_qa([question("893", context)], tokenizer, V1, 64, 0, training=True)
    cut = context[window["offsets_start"][window["start_position"]] : window["offsets_end"][window["end_position"]]]
    assert cut in ("893", "1893")


@settings(max_examples=60)
@given(words=st.integers(0, 60), room=st.integers(1, 30), stride=st.integers(0, 40), data=st.data())
def test_windows_hold_every_token_and_the_answer_where_it_is(tokenizer, words, room, stride, data):
    context = " ".join(f"w{i}" for i in range(words))
    asked = tokenizer.encode(["a chair"])[0].tolist()
    said = tokenizer.encode([context])[0].tolist()
    max_length = len(asked) + 3 + room
    if (max_length - 3) // 2 < len(asked):
        asked = asked[: (max_length - 3) // 2]
        room = max_length - 3 - len(asked)
    answer = f"w{data.draw(st.integers(0, words - 1))}" if words else None
    example = question(answer, context, "a chair")
    windows = encode_qa([question(), example], tokenizer, V2, max_length, stride, training=True)
    windows = [window for window in windows if window["example"] == 1]
    held = set()
    for number, window in enumerate(windows):
        first = window["passage_token"]
        inside = window["input_ids"][len(asked) + 2 : -1]
        assert inside == said[first : first + room]
        assert len(window["input_ids"]) <= max_length
        assert first == number * min(stride, room)
        held |= set(range(first, first + len(inside)))
        start, end = window["start_position"], window["end_position"]
        if start:
            cut = context[window["offsets_start"][start] : window["offsets_end"][end]]
            assert cut == answer
        else:
            assert end == 0
            assert answer is None or not (
                context.index(answer) in window["offsets_start"]
                and context.index(answer) + len(answer) in window["offsets_end"]
            )
    if stride:
        assert held == set(range(len(said)))
        assert all(window["passage_token"] + room < len(said) for window in windows[:-1])
    else:
        assert len(windows) == 1


def test_long_questions_lose_their_end_and_passages_keep_room(tokenizer):
    long = question("his chair", text="the chair " * 100)
    (window,) = encode_qa([long], tokenizer, V1, 384, 128, training=True)
    asked = tokenizer.encode([long.question])[0].tolist()
    assert window["input_ids"][1 : MAX_QUESTION_TOKENS + 2] == [*asked[:MAX_QUESTION_TOKENS], EOS]
    short = encode_qa([long], tokenizer, V1, 23, 128, training=True)
    assert all(window["input_ids"][11] == EOS for window in short)


def test_what_cannot_be_encoded_is_named(tokenizer):
    with pytest.raises(ConfigError, match="max_length 4 leaves no room"):
        encode_qa([question()], tokenizer, V2, 4, 0, training=False)
    with pytest.raises(DataError, match=r"squad1.1, row 1 \(id q\): no answer to train on"):
        encode_qa([question()], tokenizer, V1, 64, 0, training=True)
    astray = QaExample("q", 4, "a", CONTEXT, (("chair", 3),))
    with pytest.raises(DataError, match=r"row 4 \(id q\): answer 'chair' is not at character 3"):
        encode_qa([astray], tokenizer, V1, 64, 0, training=True)
    (window,) = encode_qa([question()], tokenizer, V2, 64, 0, training=True)
    assert (window["start_position"], window["end_position"]) == (0, 0)


def test_batches_are_padded_and_carry_positions_of_training_windows(tokenizer):
    examples = [question("his chair"), question("Machine", text="What stood behind the man who sat there?")]
    windows = encode_qa(examples, tokenizer, V1, 128, 64, training=True)
    batch = collate_qa(windows, PAD)
    longest = max(len(window["input_ids"]) for window in windows)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, longest)
    assert batch["start_positions"].tolist() == [window["start_position"] for window in windows]
    assert batch["end_positions"].tolist() == [window["end_position"] for window in windows]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    shorter = collate_qa(encode_qa(examples, tokenizer, V1, 128, 64, training=False), PAD)
    assert sorted(shorter) == ["attention_mask", "input_ids", "token_type_ids"]
