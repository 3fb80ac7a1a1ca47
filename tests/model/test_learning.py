"""The model learns from context: in a language where every token is decided by its neighbour, both losses fall."""

import math

import numpy as np
import torch

from pmlm_core.corpus.masking import mask_windows
from pmlm_core.corpus.packing import Packer
from pmlm_core.corpus.shard_reader import Rows
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.model.collate import collate
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.pretraining import PmlmForPreTraining

WORDS, LENGTH, FIRST = 64, 32, 6
IDS = SpecialIds()


def counting_batch(step: int, rows: int = 24) -> dict[str, torch.Tensor]:
    """Rows that count upwards from a random word, every predicted position a [MASK]: nothing to copy."""
    starts = np.random.default_rng(step).integers(0, WORDS, rows)
    packer = Packer(LENGTH, IDS, documents_share_windows=False, stream_key=step)
    for start in starts:
        packer.add(((start + np.arange(LENGTH - 3)) % WORDS + FIRST).astype(np.int32))
    windows = packer.flush()
    masked = mask_windows(
        windows, view=0, stream_key=step, first_row=0, special_ids=IDS, ordinary_ids=np.arange(FIRST, FIRST + WORDS)
    )
    batch = Rows(
        input_ids=windows.input_ids,
        offsets=windows.offsets,
        segment_starts=windows.segment_starts,
        positions=masked.positions,
        masked_offsets=masked.offsets,
        replacement_ids=np.full_like(masked.replacement_ids, IDS.mask),
        step_lengths=masked.step_lengths,
        step_offsets=masked.step_offsets,
    )
    return collate(batch, objective="AE+PAR", max_length=LENGTH, max_predictions=16, special_ids=IDS)


def test_both_losses_fall_far_below_what_frequencies_alone_allow():
    torch.manual_seed(0)
    model = PmlmForPreTraining(
        PmlmConfig(
            vocab_size=FIRST + WORDS,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=256,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30)
        model(**counting_batch(step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        output = model(**counting_batch(10_000))
    without_context = math.log(WORDS)
    assert output.ae_loss_sum / output.num_predictions < without_context - 1
    assert output.par_loss_sum / output.num_predictions < without_context - 1
