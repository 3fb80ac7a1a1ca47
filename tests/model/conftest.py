"""Small models and batches for the tests of the model."""

from collections.abc import Callable, Iterator

import pytest
import torch
from model_makers import random_rows
from torch import Tensor

from pmlm_core.corpus.special import SpecialIds
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.model.collate import collate
from pmlm_core.model.cost import max_predictions


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors here are tiny: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Tensor]]:
    def make(objective: str = "AE+PAR", lengths: tuple[int, ...] = (24, 17, 24), seed: int = 0) -> dict[str, Tensor]:
        return collate(
            random_rows(list(lengths), seed=seed),
            objective=objective,
            max_length=24,
            max_predictions=max_predictions(24, 0.3),
            special_ids=SpecialIds(),
        )

    return make


@pytest.fixture
def make_model() -> Callable[..., PmlmForPreTraining]:
    def make(objective: str = "AE+PAR", **overrides: object) -> PmlmForPreTraining:
        options: dict[str, object] = {
            "vocab_size": 60,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 32,
            "max_rel_pos": 16,
            "rel_pos_bins": 8,
            # Large weights, so that attention is far from uniform and a wrong mask changes the numbers.
            "initializer_range": 0.4,
            "objective": objective,
        }
        torch.manual_seed(0)
        return PmlmForPreTraining(PmlmConfig(**(options | overrides))).double().eval()

    return make
