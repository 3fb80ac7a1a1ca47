"""The peer of preprocessing: `datasets.map` with a fast tokenizer and a masking collator, text to masked Arrow.

As transformers' `run_mlm.py` does it, made as quick as that way allows: text is loaded with `load_dataset`, tokenized
and cut into windows by one batched map, masked by another that calls `DataCollatorForLanguageModeling`; both write
Arrow, with one process a core. The tokenizer is tokenizers' Unigram over the very pieces and scores of the
SentencePiece model, so both make about the same tokens (`tokens_in` counts the peer's). One masked copy is made, and
every token is masked by itself.
"""

import multiprocessing
import os
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import sentencepiece as spm

SPECIALS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
MASK = "[MASK]"
_BOOKS = 8  # documents a batch: a book is long
_WINDOWS = 1000


def through_datasets(model: bytes, files: list[str], builder: str, workers: int, max_length: int, out: str) -> None:
    """All of it in a process of its own, as a command would be, imports included.

    Args:
        model: a SentencePiece model.
        files: text, with `builder` "json" (field "text") or "text".
        out: folder for the Arrow files.

    Raises:
        SystemExit: it failed, or datasets is not installed.
    """
    worker = multiprocessing.get_context("spawn").Process(
        target=_run, args=(model, files, builder, workers, max_length, out)
    )
    worker.start()
    worker.join()
    if worker.exitcode:
        raise SystemExit("the peer failed, see above; it needs datasets: pip install -e .[bench]")


def fast_tokenizer(model: bytes) -> Any:
    """The SentencePiece model as a fast tokenizer of transformers."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = spm.SentencePieceProcessor(model_proto=model)
    pieces = [(raw.id_to_piece(number), raw.get_score(number)) for number in range(raw.vocab_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=raw.unk_id()))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=MASK, **SPECIALS)


def tokens_in(model: bytes, texts: list[str]) -> int:
    """How many tokens the peer makes of texts; to be compared with ours."""
    return sum(map(len, fast_tokenizer(model)(texts, add_special_tokens=False)["input_ids"]))


def _run(model: bytes, files: list[str], builder: str, workers: int, max_length: int, out: str) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()  # a book is longer than a model, and it says so
    tokenizer = fast_tokenizer(model)
    loaders = min(workers, len(files))  # a file is read by one
    loaded = datasets.load_dataset(builder, data_files=files, split="train", cache_dir=out, num_proc=loaders)
    windows = loaded.map(
        partial(_windows, tokenizer=tokenizer, max_length=max_length),
        batched=True,
        batch_size=_BOOKS,
        num_proc=workers,
        remove_columns=loaded.column_names,
    )
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, return_tensors="np")
    windows.map(
        partial(_mask, collator=collator),
        batched=True,
        batch_size=_WINDOWS,
        num_proc=workers,
        remove_columns=windows.column_names,
    )


def _windows(batch: dict[str, list[str]], *, tokenizer: Any, max_length: int) -> dict[str, list[Any]]:
    """Tokens of the texts, joined and cut into whole windows; what is left at the end is dropped."""
    ids = np.fromiter(chain.from_iterable(tokenizer(batch["text"], add_special_tokens=False)["input_ids"]), np.int32)
    rows = ids[: len(ids) // max_length * max_length].reshape(-1, max_length)
    return {"input_ids": list(rows), "special_tokens_mask": list(np.zeros(rows.shape, np.int8))}


def _mask(batch: dict[str, list[Any]], *, collator: Any) -> dict[str, Any]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    masked = collator(rows)
    return {"input_ids": masked["input_ids"], "labels": masked["labels"]}
