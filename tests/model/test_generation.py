"""Decoding against oracles that recompute everything; what `generate` is asked to heed; learning; saving."""

import functools

import pytest
import torch
from generation_makers import SOURCES, pad, small_model, undecided_model
from oracles.generation import beam_search, best_of_all, greedy, next_log_probabilities
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

import pmlm_core.model.auto  # noqa: F401 - makes transformers know pmlm
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.cross_entropy import IGNORED
from pmlm_core.model.generation.conditional import PmlmForConditionalGeneration

EOS = 2
ALLOWED = [EOS, *range(6, 60)]


def step_of(model, source):
    with torch.no_grad():
        return functools.cache(lambda target: next_log_probabilities(model, source, target).detach())


def cut(row: torch.Tensor) -> list[int]:
    """A generated row without its [SOS] and padding."""
    ids = row.tolist()
    assert ids[0] == 0
    ids = ids[1:]
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("rel_pos_bins", [8, 0])
def test_greedy_is_the_recomputation_of_every_step(rel_pos_bins, left):
    model = small_model(rel_pos_bins=rel_pos_bins)
    options = {"max_new_tokens": 9, "return_dict_in_generate": True, "output_logits": True}
    cached = model.generate(pad(SOURCES, left=left), **options)
    naive = model.generate(pad(SOURCES, left=left), use_cache=False, **options)
    assert torch.equal(cached.sequences, naive.sequences)
    for a, b in zip(cached.logits, naive.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    lengths = set()
    for row, source in enumerate(SOURCES):
        target, seen = greedy(step_of(model, source), ALLOWED, EOS, 9)
        assert cut(cached.sequences[row]) == target
        for logits, expected in zip(cached.logits, seen, strict=False):
            torch.testing.assert_close(logits[row].log_softmax(-1).double(), expected, rtol=1e-5, atol=1e-5)
        lengths.add(len(target))
    assert max(lengths) > 2


def test_a_given_beginning_is_gone_on_from():
    model = small_model()
    whole = model.generate(pad(SOURCES), max_new_tokens=8, min_new_tokens=8)
    rest = model.generate(pad(SOURCES), decoder_input_ids=whole[:, :4], max_new_tokens=5, min_new_tokens=5)
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("early", ["never", False])
@pytest.mark.parametrize(("beams", "a", "end_bias"), [(3, 0.0, 1.5), (3, 0.7, 2.0), (4, 1.3, 2.0)])
def test_beam_search_is_the_oracles(beams, a, end_bias, early):
    model = undecided_model(end_bias)
    options = {"num_beams": beams, "length_penalty": a, "early_stopping": early, "max_new_tokens": 6}
    output = model.generate(
        pad(SOURCES), num_return_sequences=beams, return_dict_in_generate=True, output_scores=True, **options
    )
    lengths = set()
    for row, source in enumerate(SOURCES):
        expected = beam_search(step_of(model, source), ALLOWED, EOS, 6, beams=beams, a=a, never=early == "never")
        for rank, (target, score) in enumerate(expected):
            at = row * beams + rank
            assert cut(output.sequences[at]) == target, (row, rank)
            assert output.sequences_scores[at].item() == pytest.approx(score, abs=1e-5)
            lengths.add(len(target))
    assert len(lengths) > 1


def test_length_penalty_decides_between_short_and_long():
    model = undecided_model(2.0)
    options = {"num_beams": 3, "early_stopping": "never", "max_new_tokens": 6}
    short, long = ([len(cut(row)) for row in model.generate(pad(SOURCES), length_penalty=a, **options)] for a in (0, 3))
    assert sum(short) + 3 < sum(long)


@pytest.mark.parametrize("a", [0.0, 1.0, 3.0])
def test_enough_beams_find_the_best_of_all_sequences(a):
    model = small_model(vocab_size=9, initializer_range=0.25)
    source = [0, 7, 8, 6, 2]
    output = model.generate(
        torch.tensor([source]),
        num_beams=40,
        length_penalty=a,
        early_stopping="never",
        max_new_tokens=3,
        return_dict_in_generate=True,
        output_scores=True,
    )
    target, score = best_of_all(step_of(model, source), [EOS, 6, 7, 8], EOS, 3, a)
    assert cut(output.sequences[0]) == target
    assert output.sequences_scores[0].item() == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"num_beams": 4, "num_return_sequences": 3}])
def test_a_row_gives_the_same_alone_and_in_a_batch(options):
    model = undecided_model(1.5)
    together = model.generate(pad(SOURCES), max_new_tokens=8, **options)
    each = together.shape[0] // len(SOURCES)
    for row, source in enumerate(SOURCES):
        alone = model.generate(torch.tensor([source]), max_new_tokens=8, **options)
        got = together[row * each : (row + 1) * each]
        assert [cut(x) for x in got] == [cut(x) for x in alone]


@pytest.mark.parametrize("beams", [1, 3])
def test_scores_of_generate_are_the_teacher_forced_log_probabilities(beams):
    model = undecided_model(1.5)
    output = model.generate(
        pad(SOURCES),
        num_beams=beams,
        length_penalty=0.0,
        max_new_tokens=7,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    labels = output.sequences[:, 1:].masked_fill(output.sequences[:, 1:] == 1, IGNORED)
    for row in range(3):
        loss = model(pad(SOURCES)[row : row + 1], labels=labels[row : row + 1]).loss_sum.item()
        if beams > 1:
            total = output.sequences_scores[row].item()
        else:
            steps = zip(output.logits, labels[row].tolist(), strict=True)
            total = sum(logits[row].log_softmax(-1)[v].item() for logits, v in steps if v != IGNORED)
        assert total == pytest.approx(-loss, abs=1e-4)


def test_only_ordinary_tokens_and_the_end_are_generated():
    model = small_model()
    with torch.no_grad():
        model.head.bias[:6] += 30
    free = model.generate(pad(SOURCES), max_new_tokens=6)[:, 1:]
    assert (free[:, 0] == EOS).all()
    bound = model.generate(pad(SOURCES), max_new_tokens=6, min_new_tokens=6, num_beams=2)[:, 1:]
    assert (bound >= 6).all()
    own = model.generate(pad(SOURCES), generation_config=GenerationConfig(max_new_tokens=3, do_sample=True))[:, 1:]
    assert set(own.flatten().tolist()) <= {EOS, 1}


def test_minimum_length_and_trigram_blocking_see_the_target_alone():
    model = small_model()
    with torch.no_grad():
        model.head.bias[[20, 21]] += 40
    repeated = model.generate(pad(SOURCES), max_new_tokens=12, min_new_tokens=10)[:, 1:]
    blocked = model.generate(pad(SOURCES), max_new_tokens=12, min_new_tokens=10, no_repeat_ngram_size=3)[:, 1:]
    for row, others in zip(blocked.tolist(), repeated.tolist(), strict=True):
        assert 1 not in row[:10]
        assert EOS not in row[:9]
        trigrams = list(zip(row, row[1:], row[2:], strict=False))
        assert len(set(trigrams[:8])) == len(trigrams[:8])
        others = list(zip(others, others[1:], others[2:], strict=False))
        assert len(set(others)) < len(others)
    # The source's own trigrams are free: the target may copy it.
    source = torch.tensor([[0, 20, 20, 20, 2]])
    assert cut(model.generate(source, max_new_tokens=3, no_repeat_ngram_size=3)[0])[:1] in ([20], [21])


def test_sampling_follows_the_models_distribution():
    model = small_model(initializer_range=0.1)
    torch.manual_seed(1)
    drawn = model.generate(
        torch.tensor(SOURCES[:1]), do_sample=True, top_k=0, max_new_tokens=1, num_return_sequences=4000
    )[:, 1]
    p = next_log_probabilities(model, SOURCES[0], ()).detach().exp()
    p = torch.where(torch.isin(torch.arange(60), torch.tensor(ALLOWED)), p, 0)
    p = p / p.sum()
    share = torch.bincount(drawn, minlength=60) / 4000
    assert ((share - p).abs() < 4.5 * (p * (1 - p) / 4000).sqrt() + 1e-9).all()


def test_a_target_that_cannot_fit_is_refused_before_it_is_begun():
    model = small_model()
    model.generate(pad(SOURCES), max_new_tokens=25)
    with pytest.raises(ValueError, match=r"7 tokens and 26 new ones need 33 positions.*has 32"):
        model.generate(pad(SOURCES), max_new_tokens=26)


def test_a_source_that_cannot_fit_is_refused_and_padding_may_go_beyond():
    model = small_model()
    source = torch.tensor([[0, *[9] * 31, 2], [0, 9, 2, *[1] * 30]])
    with pytest.raises(ValueError, match=r"source is 33 tokens long and the model has 32 positions"):
        model.generate(source, max_new_tokens=1)
    expected = model.generate(source[1:, :3], max_new_tokens=5)
    assert torch.equal(model.generate(source[1:], max_new_tokens=5), expected)


def test_bf16_decodes_nearly_as_fp32():
    model = small_model(initializer_range=0.1).float()
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    expected = model.generate(pad(SOURCES), **options).logits[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = model.generate(pad(SOURCES), num_beams=2, **options)
        assert got.sequences.shape == (3, 5)
        got = got.logits[0][::2]
    assert torch.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.99


def test_a_pre_training_checkpoint_becomes_a_generator_and_comes_back_through_auto(tmp_path):
    config = PmlmConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    torch.manual_seed(0)
    pretrained = PmlmForPreTraining(config)
    pretrained.save_pretrained(tmp_path / "pretrained")
    model, report = PmlmForConditionalGeneration.from_pretrained(tmp_path / "pretrained", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(model.head.dense.weight, pretrained.head.dense.weight)
    assert not config.is_encoder_decoder
    model.generation_config.update(max_new_tokens=7, num_beams=3, length_penalty=0.6)
    expected = model.eval().generate(pad(SOURCES))
    model.save_pretrained(tmp_path / "tuned")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "tuned").eval()
    assert isinstance(loaded, PmlmForConditionalGeneration)
    assert loaded.generation_config.suppress_tokens == [0, 1, 3, 4, 5]
    assert loaded.generation_config.num_beams == 3
    assert torch.equal(loaded.generate(pad(SOURCES)), expected)
    _, report = PmlmForPreTraining.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_it_learns_to_reverse_within_seconds():
    config = PmlmConfig(
        vocab_size=16,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    model = PmlmForConditionalGeneration(config)
    draw = torch.Generator().manual_seed(0)

    def batch(rows):
        words = torch.randint(6, 16, (rows, 3), generator=draw)
        start, end = torch.zeros(rows, 1, dtype=torch.int64), torch.full((rows, 1), EOS)
        return torch.cat([start, words, end], 1), torch.cat([words.flip(1), end], 1)

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        source, labels = batch(64)
        optimizer.zero_grad()
        model(source, labels=labels).loss.backward()
        optimizer.step()
    source, labels = batch(100)
    right = (model.eval().generate(source, max_new_tokens=4)[:, 1:] == labels).all(1).float().mean()
    assert right > 0.9  # by chance 1 in 1000
