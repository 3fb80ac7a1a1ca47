"""What is made ready before the first step, as far as a machine without a GPU can tell."""

import pytest
import torch

from pipelines.pretrain.setup import _record
from pmlm_core.errors import TrainingError
from pmlm_core.training.step import Precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="here passes can be recorded")
def test_passes_that_cannot_be_recorded_are_sent_as_they_are_unless_recording_was_asked_for():
    model, batch = torch.nn.Linear(3, 2), {"input": torch.ones(4, 3)}
    plain, precision, warnings = model.forward, Precision(torch.device("cpu"), "fp32"), []
    _record(model, batch, precision, warnings.append, asked_for=False)
    assert model.forward == plain
    assert warnings[0].startswith("passes are sent kernel by kernel, for they cannot be recorded")
    with pytest.raises(TrainingError, match=r"cuda_graphs: the passes cannot be recorded \(.*leave it out"):
        _record(model, batch, precision, warnings.append, asked_for=True)
    assert len(warnings) == 1
