"""A small set of blocks from the sample prose, for tests that train."""

import shutil
from pathlib import Path

from pmlm_core.corpus.blocks import BlockSet, Manifest, ShardWriter
from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.packing import Packer
from pmlm_core.corpus.tokenizer import TextTokenizer

VIEWS = 2


def make_blocks(
    folder: Path, texts: list[str], tokenizer_dir: str, *, max_length: int = 32, stream_key: int = 5
) -> str:
    """Pack and mask `texts` into `folder`: one shard for training (four fifths of them), one held out."""
    tokenizer = TextTokenizer.load(tokenizer_dir)
    folder.mkdir(parents=True)
    cut = len(texts) * 4 // 5
    splits = {}
    for split, part in (("train", texts[:cut]), ("validation", texts[cut:])):
        packer = Packer(max_length, tokenizer.special_ids, documents_share_windows=True, stream_key=stream_key)
        for ids in tokenizer.encode(part):
            packer.add(ids)
        windows = packer.flush()
        views = [
            mask_windows(
                windows,
                view=view,
                stream_key=stream_key,
                first_row=0,
                special_ids=tokenizer.special_ids,
                ordinary_ids=tokenizer.ordinary_ids,
            )
            for view in range(VIEWS)
        ]
        name = f"{split}.arrow"
        writer = ShardWriter(
            str(folder / name),
            views=VIEWS,
            vocab_size=tokenizer.vocab_size,
            max_length=max_length,
            tokenizer_fingerprint=tokenizer.fingerprint,
        )
        writer.write(windows, views)
        writer.close()
        splits[split] = [writer.entry(name)]
    Manifest(
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        special_ids=tokenizer.special_ids,
        max_length=max_length,
        views=VIEWS,
        splits=splits,
        config={"mask_prob": 0.15, "max_block": 6},
    ).save(str(folder))
    shutil.copytree(tokenizer_dir, folder / "tokenizer")
    assert len(BlockSet.open(str(folder))) > 0
    return str(folder)
