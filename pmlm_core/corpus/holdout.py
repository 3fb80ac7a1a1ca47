"""What is held out for validation: decided by content, so that copies of a text never fall on both sides.

Short documents go to one side as a whole. Long ones (a book is a document) are divided into sections first: held out as
wholes, a few hundred books would give a validation set of a random handful of them, or none.
"""

import hashlib
import re
from collections.abc import Iterator

from pmlm_core.randomness import key

TRAIN, VALIDATION = "train", "validation"
SECTION_CHARACTERS = 1 << 16
_SLACK = 1 << 12  # how far a section may stretch to end at a line's end
_WHITE = re.compile(r"\s")


class HeldOut:
    """Decides for texts.

    Args:
        fraction: share of the text to hold out, 0 <= fraction < 1.
        seed: another seed holds out other texts.
    """

    def __init__(self, fraction: float, seed: int) -> None:
        self._below = int(fraction * 2**64)
        self._salt = key(seed, "validation").to_bytes(8, "little")

    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield (split, part) in order; joined, the parts are the text.

        Neighbouring sections of one split stay together, so a document of which nothing is held out comes back whole.
        """
        if len(text) <= SECTION_CHARACTERS + _SLACK:
            yield self._split(text), text
            return
        begin = start = 0
        current = ""
        while start < len(text):
            stop = _section_end(text, start)
            split = self._split(text[start:stop])
            if split != current and start:
                yield current, text[begin:start]
                begin = start
            current, start = split, stop
        yield current, text[begin:]

    def _split(self, text: str) -> str:
        if not self._below:
            return TRAIN
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, key=self._salt).digest()
        return VALIDATION if int.from_bytes(digest, "little") < self._below else TRAIN


def _section_end(text: str, start: int) -> int:
    """End of the section at `start`: after a line's end if one is near, else before white space, else anywhere."""
    wanted = start + SECTION_CHARACTERS
    if len(text) <= wanted + _SLACK:
        return len(text)
    newline = text.find("\n", wanted, wanted + _SLACK)
    if newline >= 0:
        return newline + 1
    white = _WHITE.search(text, wanted, wanted + _SLACK)
    return white.start() if white else wanted + _SLACK
