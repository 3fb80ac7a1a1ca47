"""What `pmlm fill` prints."""

import pytest

from pipelines.fill import run as stage
from pipelines.fill.config import FillConfig
from pmlm_core.model.filling import Candidate, Filled


class Stand:
    """In a Filler's place: every mask has a word and, if wanted, a piece that goes on one."""

    piece = True

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def fill(self, texts: list[str], top_k: int) -> list[Filled]:
        found = (Candidate(7, "cat", True, 0.5), Candidate(8, "s", not self.piece, 0.25))
        return [Filled(text, text.replace("[MASK]", "cat"), (found,)) for text in texts]


@pytest.mark.parametrize("piece", [True, False])
def test_the_sign_of_a_piece_is_explained_where_it_stands(piece, monkeypatch, capsys):
    monkeypatch.setattr(stage, "Filler", Stand)
    monkeypatch.setattr(Stand, "piece", piece)
    stage.run(FillConfig(model=".", text=["The [MASK] sat.", "A [MASK]."]))
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"  [MASK] 1  cat 50.0%  {'+' * piece}s 25.0%"
    assert sum("joins what stands before it" in line for line in said) == piece
