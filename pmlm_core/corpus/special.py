"""The special tokens and their ids. A tokenizer carries one `SpecialIds`; nothing else hard-codes an id."""

from dataclasses import asdict, dataclass

SOS, PAD, EOS, UNK, MASK, PSEUDO = "[SOS]", "[PAD]", "[EOS]", "[UNK]", "[MASK]", "[PSEUDO]"


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens. The defaults are those of every tokenizer that pmlm trains.

    A BERT WordPiece vocabulary keeps its own numbering (`[CLS]` serves as `[SOS]`, `[SEP]` as `[EOS]`), so that
    published checkpoints fit; `pseudo` may equal `mask` there (docs/method.md, 3).
    """

    sos: int = 0
    pad: int = 1
    eos: int = 2
    unk: int = 3
    mask: int = 4
    pseudo: int = 5

    def as_dict(self) -> dict[str, int]:
        return asdict(self)
