"""The sample: fair, of the size asked for, a function of seed and piece alone, against sorting everything."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.pieces import Piece, Span, plan_pieces
from pmlm_core.corpus.sampling import Share, sample_piece, share_out
from pmlm_core.corpus.sources import Source, list_sources
from pmlm_core.corpus.text_cuts import cut
from pmlm_core.randomness import key

LINES = InputFormat("jsonl")


@pytest.fixture(scope="module")
def books(sample_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two files of JSON lines: documents of one paragraph to a dozen, some repeated."""
    folder = tmp_path_factory.mktemp("books")
    documents = ["\n\n".join(sample_texts[i : i + 1 + i % 12]) for i in range(0, 230)] + sample_texts[:40]
    for name, part in (("a", documents[::2]), ("b", documents[1::2])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


def pieces_of(folder: str, piece_bytes: int = 1 << 17) -> list[Piece]:
    return plan_pieces(list_sources([folder], LINES), piece_bytes)


def by_sorting(share: Share, folder_texts: list[str], seed: int) -> list[str]:
    """All passages in the order of their keys, taken until the share is full, put back in order."""
    passages = [passage for text in folder_texts for passage in cut(text, 2000, 4000)]
    order = sorted(range(len(passages)), key=lambda i: key(seed, "tokenizer-sample", share.number, i))
    taken, held = [], 0
    for i in order:
        if held >= share.sample_bytes:
            break
        taken.append(i)
        held += len(passages[i].encode())
    return [passages[i] for i in sorted(taken)]


@pytest.mark.parametrize("sample_bytes", [1, 5_000, 60_000, 10**9])
def test_a_share_is_what_sorting_all_passages_gives(books, sample_bytes):
    (piece,) = plan_pieces(list_sources([f"{books}/a.jsonl"], LINES), 1 << 30)
    texts = [json.loads(line)["text"] for line in Path(books, "a.jsonl").read_text(encoding="utf-8").splitlines()]
    share = Share(3, piece, sample_bytes)
    sample = sample_piece(share, LINES, seed=5)
    assert sample.passages == by_sorting(share, texts, seed=5)
    assert sample.sample_bytes == sum(len(passage.encode()) for passage in sample.passages)
    assert sample.read_bytes == sum(len(text.encode()) for text in texts)
    assert sample.documents == len(texts)
    assert sample_piece(share, LINES, seed=5) == sample
    if sample_bytes < 10**9:
        assert sample.passages != sample_piece(share, LINES, seed=6).passages
        assert sample_bytes <= sample.sample_bytes < sample_bytes + 4 * 4000


def test_every_passage_has_the_same_chance(tmp_path):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": f"{i:04d}"}) + "\n" for i in range(50)))
    (piece,) = pieces_of(str(tmp_path))
    counts = np.zeros(50)
    for seed in range(400):
        for passage in sample_piece(Share(0, piece, 40), LINES, seed).passages:  # 10 of 50
            counts[int(passage)] += 1
    assert counts.sum() == 4000
    chi_square = ((counts - 80) ** 2 / (80 * 0.8)).sum()
    assert 20 < chi_square < 90  # 49 degrees of freedom: mean 49, standard deviation 10


def test_shares_follow_the_weights(books):
    pieces = pieces_of(books)
    shares = share_out(pieces, 100_000, seed=0)
    assert [share.number for share in shares] == list(range(len(pieces)))
    assert 100_000 <= sum(share.sample_bytes for share in shares) <= 100_000 + len(pieces)
    by_weight = [share.sample_bytes / sum(span.weight for span in share.piece.spans) for share in shares]
    assert max(by_weight) < 1.05 * min(by_weight)


def test_of_a_very_large_corpus_some_pieces_are_read():
    source = Source("/nowhere/x.jsonl", 32 << 20, 0, "jsonl")
    pieces = [
        Piece((Span(replace(source, uri=f"/nowhere/{i}.jsonl"), 0, 32 << 20, True, True, 32 << 20),))
        for i in range(5000)
    ]
    shares = share_out(pieces, 64 << 20, seed=0)
    assert len(shares) == 256
    assert 64 << 20 <= sum(share.sample_bytes for share in shares) <= (64 << 20) + 256
    assert {share.number for share in shares} != {share.number for share in share_out(pieces, 64 << 20, seed=1)}
    assert len(share_out(pieces, 4 << 30, seed=0)) == 1024  # eight times the sample
    assert share_out([], 1000, seed=0) == []


def test_what_cannot_be_read_is_counted_and_placed(tmp_path):
    good = json.dumps({"text": "a good document"})
    (tmp_path / "x.jsonl").write_text(f"{good}\nnot json\n{json.dumps({'body': 'x'})}\n{good}\n")
    (piece,) = pieces_of(str(tmp_path))
    sample = sample_piece(Share(0, piece, 1000), LINES, 0)
    assert sample.passages == ["a good document"] * 2
    assert sample.rejects == {"invalid_json": 1, "missing_field": 1}
    assert f"{tmp_path}/x.jsonl, row 2" in sample.example
