"""The cross-entropy kernel against torch's, in Triton's interpreter or on a GPU."""

from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch.nn import functional as F

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and Version(version("triton")) < Version("3.7") and Version(np.__version__) >= Version("2.4"):
    pytest.skip("the interpreter of Triton before 3.7 does not know numpy 2.4", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from pmlm_core.model import cross_entropy, cross_entropy_tiled


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The interpreter goes on asking."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("block", [16, 1024], ids=["blocks", "one block"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [13, 50, 64])
def test_losses_gradients_and_guesses_are_torchs(classes, smoothing, scaled, block, monkeypatch):
    monkeypatch.setattr(cross_entropy_tiled, "BLOCK", block)
    torch.manual_seed(0)
    padded = torch.full((9, classes + 3), 7.0, device=DEVICE)
    logits = padded[:, :classes].copy_(3 * torch.randn(9, classes))
    labels = torch.randint(0, classes, (9, 2), device=DEVICE)[:, 0]
    assert not labels.is_contiguous()
    labels[3] = -100
    labels[5] = logits[5].argmax()
    scale = torch.rand(9, device=DEVICE) if scaled else None
    expected = logits.clone().requires_grad_()
    losses = F.cross_entropy(expected, labels, reduction="none", label_smoothing=smoothing)
    (losses * (1.0 if scale is None else scale)).sum().backward()
    right = ((logits.argmax(-1) == labels) & (labels >= 0)).long()

    got, guessed, sums = cross_entropy_tiled.cross_entropy_(logits, labels, -100, smoothing, scale)
    torch.testing.assert_close(got, losses.detach())
    torch.testing.assert_close(logits, expected.grad)
    torch.testing.assert_close(sums, expected.grad.sum(0))
    assert torch.equal(guessed, right)
    assert guessed[5] == 1
    assert (padded[:, classes:] == 7).all(), "nothing is written beyond a row's classes"


@pytest.mark.parametrize("block", [8, 1024], ids=["blocks", "one block"])
def test_of_equal_logits_the_first_is_the_guess_and_large_ones_do_no_harm(block, monkeypatch):
    monkeypatch.setattr(cross_entropy_tiled, "BLOCK", block)
    logits = torch.zeros(4, 40, device=DEVICE)
    logits[3, 7] = 1e4
    labels = torch.tensor([0, 1, 39, 7], device=DEVICE)
    losses, guessed, _ = cross_entropy_tiled.cross_entropy_(logits, labels, -100, 0.0)
    assert guessed.tolist() == [1, 0, 0, 1]
    assert losses[3] == 0


def test_a_whole_block_may_be_ruled_out(monkeypatch):
    monkeypatch.setattr(cross_entropy_tiled, "BLOCK", 16)
    logits = torch.randn(2, 40, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    logits[:, :20] = -torch.inf
    labels = torch.tensor([30, 3], device=DEVICE)
    expected = F.cross_entropy(logits, labels, reduction="none")
    losses, _, _ = cross_entropy_tiled.cross_entropy_(logits, labels, -100, 0.0)
    torch.testing.assert_close(losses, expected)
    assert logits.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_that_is_no_class_gives_no_number(smoothing):
    labels = torch.tensor([3, 40, -1, -100], device=DEVICE)
    losses, guessed, _ = cross_entropy_tiled.cross_entropy_(torch.zeros(4, 40, device=DEVICE), labels, -100, smoothing)
    assert losses.isnan().tolist() == [False, True, True, False]
    assert losses[3] == 0
    assert not guessed.any()


def test_the_kernel_is_tried_before_it_is_trusted(monkeypatch):
    tried = cross_entropy._passes.__wrapped__
    device = torch.device(DEVICE)
    assert tried(device, torch.float32)

    def wrong(logits, *_):
        return logits[:, 0].clone(), logits[:, 0].long(), logits.sum(0)

    monkeypatch.setattr(cross_entropy_tiled, "cross_entropy_", wrong)
    with pytest.warns(UserWarning, match="gives other numbers on .*; torch's own is taken"):
        assert not tried(device, torch.float32)
    monkeypatch.setattr(cross_entropy_tiled, "cross_entropy_", None)
    with pytest.warns(UserWarning, match=r"failed \(TypeError: .*; torch's own is taken"):
        assert not tried(device, torch.float32)
