"""The tokenizer that preprocessing put beside the blocks."""

from pmlm_core import storage
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import DataError


def tokenizer_files(data_dir: str, fingerprint: str) -> dict[str, bytes]:
    """Its files by name; they go into every checkpoint.

    Args:
        fingerprint: of the tokenizer by which the blocks were made.

    Raises:
        DataError: it is not there, damaged, or another.
    """
    folder = storage.join(data_dir, "tokenizer")
    try:
        tokenizer = TextTokenizer.load(folder)
    except DataError as error:
        raise DataError(
            f"the blocks in {data_dir} lack the tokenizer that belongs to them, without which no checkpoint can be "
            f"used ({error}); copy it there, or run `pmlm preprocess` again, which puts it there"
        ) from error
    if tokenizer.fingerprint != fingerprint:
        raise DataError(
            f"{folder} holds tokenizer {tokenizer.fingerprint[:12]}, and the blocks beside it were made with "
            f"{fingerprint[:12]}: their ids mean other tokens. Put theirs there"
        )
    return tokenizer.files_at(folder)
