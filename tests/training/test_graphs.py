"""What of CUDA graphs can be seen without a GPU: why there are none. With one, see tests/model/test_gpu.py."""

import pytest
import torch

from pmlm_core.errors import TrainingError
from pmlm_core.model import PmlmConfig, PmlmForPreTraining
from pmlm_core.training.graphs import record
from pmlm_core.training.step import Precision

CPU = Precision(torch.device("cpu"), "fp32")
BATCH = {
    "input_ids": torch.tensor([[0, 7, 4, 9, 2]]),
    "pseudo_position_ids": torch.tensor([[2]]),
    "pseudo_steps": torch.tensor([[1]]),
    "labels": torch.tensor([[11]]),
}


@pytest.fixture
def model():
    config = PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    return PmlmForPreTraining(config).train()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here passes can be recorded")
def test_a_machine_that_cannot_record_says_how_to_go_on_and_leaves_the_model_as_it_was(model):
    with pytest.raises(TrainingError, match=r"cannot be recorded .*give cuda_graphs: false, and the same"):
        record(model, BATCH, CPU)
    assert "forward" not in vars(model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_full_memory_is_told_as_such_whatever_came_of_it(model, monkeypatch):
    def fills(*_, **__):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fills)
    with pytest.raises(torch.OutOfMemoryError, match=r"20\.00 GiB"):
        record(model, BATCH, CPU)


def test_what_is_wrong_with_the_model_itself_comes_in_its_own_words(model):
    with pytest.raises(ValueError, match="labels come with pseudo_position_ids"):
        record(model, {name: BATCH[name] for name in ("input_ids", "labels")}, CPU)
