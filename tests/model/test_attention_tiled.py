"""The Triton kernels against the reference: on a GPU if there is one, else in Triton's interpreter."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch.utils._python_dispatch import TorchDispatchMode

from pmlm_core.errors import ConfigError
from pmlm_core.model.attention import choice, reference, trial
from pmlm_core.model.attention.plan import make_plan
from pmlm_core.model.attention.relbias import RelativeBias
from pmlm_core.model.pseudo import lay_out

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and Version(version("triton")) < Version("3.7") and Version(np.__version__) >= Version("2.4"):
    pytest.skip("the interpreter of Triton before 3.7 does not know numpy 2.4", allow_module_level=True)
# The interpreter is chosen when a kernel is read, as it was for Triton's own (tests/conftest.py).
with pytest.MonkeyPatch.context() as patch:
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from pmlm_core.model.attention import tiled
    from pmlm_core.model.attention.tiled import backward, launch, sizes

# The interpreter takes the bits of bfloat16 for whole numbers in products.
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
N, K, H, E = 40, 7, 2, 16
STEPS = [[1, 1, 2, 3, 3, 4, 5], [1, 2, 2, 3, 0, 0, 0]]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that small inputs have several tiles, the last of them not full; and the interpreter goes on asking."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    for kernel in sizes.KERNELS:
        monkeypatch.setitem(sizes.OVERRIDES, kernel, sizes.Tile(32, 32, 4, 1))


def _case(name, dtype=torch.float32, n=N, places=30):
    """Calls, queries, keys and values [B, L, H, E], and the table of the bias."""
    torch.manual_seed(3)
    relative = RelativeBias(H, 8, 16).to(DEVICE)
    torch.nn.init.normal_(relative.weight)
    relative.requires_grad_(name != "frozen bias")
    mask = torch.ones(2, n)
    if name in ("padded", "read"):
        mask[1, 3 * n // 4 :] = 0
    elif name == "row of padding":
        mask[1] = 0
    positions = torch.stack([torch.randperm(places)[:K] for _ in range(2)])
    given = torch.stack([torch.randperm(n + 9)[:n] for _ in range(2)]) if name == "positions given" else None
    plan = make_plan(
        lay_out(mask.to(DEVICE), torch.tensor(STEPS, device=DEVICE)),
        padded=not bool(mask.all()),
        relative=None if name == "no bias" else relative,
        reach=n + 9,
        position_ids_BN=None if given is None else given.to(DEVICE),
        slot_positions_BK=positions.to(DEVICE),
        read_ae=True,
        dtype=dtype,
        kernel="triton",
    )
    calls = plan.read if name == "read" else plan.full[:1] if name == "context alone" else plan.full
    # Views of one projection, as in a layer.
    fused = torch.randn(2, n + 2 * K, 3, H, E, device=DEVICE).to(dtype)
    q, k, v = (x.detach().requires_grad_() for x in fused.unbind(2))
    return calls, [q.detach()[:, : calls[-1].stop].requires_grad_(), k, v], relative


def _gradients(out, inputs, relative):
    grad = torch.arange(out.numel(), device=out.device).view_as(out).cos().to(out.dtype)
    out.backward(grad)
    made = [out, *(x.grad for x in inputs)]
    return made if relative.weight.grad is None else [*made, relative.weight.grad]


CASES = [
    "padded", "all visible", "positions given", "no bias", "frozen bias", "read", "context alone", "row of padding"
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "dtype", "n"),
    [(case, torch.float32, N) for case in CASES]
    # Tiles of 32 that lie far apart altogether.
    + [("padded", HALF, N), ("all visible", torch.float32, 110), ("padded", torch.float32, 110)],
)
def test_values_and_gradients_are_those_of_the_reference(case, dtype, n, monkeypatch):
    # Whether the bias is summed over all rows of the batch at once, or in groups.
    monkeypatch.setattr(backward, "_PROGRAMS", 512 if case == "context alone" else 1)
    calls, inputs, relative = _case(case, dtype, n)
    got = _gradients(tiled.attend(*inputs, calls, 0.0), inputs, relative)
    calls, inputs, relative = _case(case, dtype, n)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    dense = [reference.dense(call, 2) for call in calls]
    out = reference.attend(*exact, dense, 0.0)
    if case == "row of padding":
        # Nothing to see for the context; the appended part sees its own.
        seen = torch.cat([call.rule.codes.visible().any(2) for call in calls], 1)
        assert seen.any(1).all()
        assert not seen.all()
        out = out.masked_fill(~seen[:, :, None, None], 0.0)
    expected = _gradients(out, exact, relative)
    assert len(got) == len(expected) == (4 if case in ("no bias", "frozen bias") else 5)
    room = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.05}
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), **room)
    if len(got) == 5:
        sums = got[-1].double().sum(1).abs()
        assert (sums < (1e-5 if dtype == torch.float32 else 1e-2) * got[-1].abs().sum(1)).all()


def test_a_step_can_be_repeated_bit_by_bit():
    results = []
    for _ in range(2):
        calls, inputs, relative = _case("padded", n=20, places=15)
        torch.manual_seed(1)
        results.append(_gradients(tiled.attend(*inputs, calls, 0.2), inputs, relative))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("case", "n"), [("padded", 18), ("all visible", 18), ("all visible", 80)])
def test_dropout_drops_at_its_rate_and_the_gradient_is_that_of_its_own_forward(case, n, monkeypatch):
    """With values that are the identity, the output is the dropped probabilities themselves."""
    p = 0.3
    calls, (q, k, v), relative = _case(case, n=n, places=18)
    for other in ("keys", "queries"):
        monkeypatch.setitem(sizes.OVERRIDES, other, sizes.Tile(16, 16, 4, 1))
    length, wide = k.shape[1], 32 if n == 18 else 128
    identity = torch.eye(wide, device=DEVICE)[None, :length, None, :].expand(2, length, H, wide)
    # Wider with zeros: the same products, and a scale to make up for.
    wide_q, wide_k = (torch.nn.functional.pad(x.detach(), (0, wide - E)) for x in (q * (wide / E) ** 0.5, k))
    factors = []
    for seed in range(4 if n == 18 else 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            dropped = tiled.attend(wide_q, wide_k, identity, calls, p).transpose(1, 2)[..., :length]
            kept = tiled.attend(wide_q, wide_k, identity, calls, 0.0).transpose(1, 2)[..., :length]
        factors.append(torch.where(kept > 0, dropped / kept, torch.nan))
    seen = torch.stack(factors)[~torch.stack(factors).isnan()]
    assert ((seen == 0) | ((seen - 1 / (1 - p)).abs() < 1e-4)).all()
    rate = (seen == 0).float().mean().item()
    assert abs(rate - p) < 5 * (p * (1 - p) / seen.numel()) ** 0.5

    torch.manual_seed(0)
    got = _gradients(tiled.attend(q, k, v, calls, p), (q, k, v), relative)
    calls, inputs, relative = _case(case, n=n, places=18)
    outputs = []
    for call in calls:
        part = inputs[0][:, call.start : call.stop]
        scores = torch.einsum("bqhe,bshe->bhqs", part, inputs[1][:, : call.keys]) * E**-0.5
        weights = torch.softmax(scores + reference.dense(call, 2).bias, -1)
        factor = factors[0][:, :, call.start : call.stop, : call.keys].nan_to_num(0.0)
        outputs.append(torch.einsum("bhqs,bshe->bqhe", weights * factor, inputs[2][:, : call.keys]))
    expected = _gradients(torch.cat(outputs, 1), inputs, relative)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class Largest(TorchDispatchMode):
    """The most bytes of any tensor made."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, torch.Tensor):
                self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return out


def test_nothing_as_large_as_queries_times_keys_is_made(monkeypatch):
    for kernel in sizes.KERNELS:
        monkeypatch.setitem(sizes.OVERRIDES, kernel, sizes.Tile(128, 128, 4, 1))
    n = 250
    with Largest() as ours:
        calls, inputs, relative = _case("padded", n=n)
        _gradients(tiled.attend(*inputs, calls, 0.1), inputs, relative)
    with Largest() as dense:
        reference.dense(calls[0], 1)
    projection = 4 * 2 * (n + 2 * K) * 3 * H * E
    assert ours.nbytes <= projection < 4 * n * n <= dense.nbytes


@pytest.mark.parametrize("objective", ["AE+PAR", "AE"])
def test_a_whole_step_is_that_of_the_dense_kernel(objective, make_model, make_batch, monkeypatch):
    results = []
    for kernel in ("triton", "plain" if DEVICE == "cpu" else "sdpa"):
        monkeypatch.setenv(choice.VARIABLE, kernel)
        model = make_model(objective, num_hidden_layers=2, initializer_range=0.1).float().to(DEVICE)
        batch = {name: x.to(DEVICE) for name, x in make_batch(objective).items()}
        output = model(**batch)
        output.loss.backward()
        results.append([output.loss, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def _columns_first(x):
    return x.t().contiguous().t()


@pytest.mark.parametrize("form", [_columns_first, lambda x: x[:1]], ids=["columns first", "one row for all"])
def test_mask_and_positions_may_lie_in_memory_as_they_will(form, make_model, monkeypatch):
    ids = torch.randint(6, 60, (3, 24), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    mask, positions = torch.ones_like(ids), torch.arange(24, device=DEVICE).repeat(3, 1).flip(1)
    mask[:, 20:] = 0
    results = []
    for kernel, given in (("triton", form), ("plain" if DEVICE == "cpu" else "sdpa", lambda x: x)):
        monkeypatch.setenv(choice.VARIABLE, kernel)
        model = make_model(num_hidden_layers=2, initializer_range=0.1).float().to(DEVICE).pmlm
        masked = model(ids, given(mask)).last_hidden_state[:, :20]
        placed = model(ids, None, None, given(positions)).last_hidden_state
        (masked.sin().sum() + placed.cos().sum()).backward()
        results.append([masked, placed, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_the_trial_passes_here_and_a_kernel_that_fails_it_is_not_used(monkeypatch):
    for kernel in sizes.KERNELS:
        monkeypatch.setitem(sizes.OVERRIDES, kernel, sizes.Tile(64, 64, 4, 1))
    device = torch.device(DEVICE)
    torch.manual_seed(0)
    first = torch.rand((), device=device)
    torch.manual_seed(0)
    with torch.inference_mode():
        assert trial._worst_error(device, torch.float32, 16) < 1e-4
    assert torch.rand((), device=device) == first, "the first step of a process would draw other dropout"
    monkeypatch.setattr(trial, "_worst_error", lambda *_: 0.5)
    with pytest.warns(UserWarning, match="off by 50.0% on .* scaled_dot_product_attention instead"):
        assert not trial.passes.__wrapped__(device, torch.float32, 16)

    def breaks(*_):
        raise RuntimeError("no such instruction\nand more")

    monkeypatch.setattr(trial, "_worst_error", breaks)
    with pytest.warns(UserWarning, match=r"failed \(RuntimeError: no such instruction\) on"):
        assert not trial.passes.__wrapped__(device, torch.float32, 16)


def test_products_are_computed_as_the_device_and_the_type_can(monkeypatch):
    assert [launch._precision(dtype) for dtype in (torch.float16, torch.bfloat16)] == ["ieee"] * 2
    assert launch._precision(torch.float32).startswith("tf32")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert launch._precision(torch.float32) == "ieee"


def test_heads_of_other_sizes_and_types_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "triton")
    assert choice.kernel_for(torch.zeros(1, device=DEVICE), torch.bfloat16, 64) == "triton"
    for dtype, width in ((torch.float64, 64), (torch.float32, 48)):
        with pytest.raises(ConfigError, match="has no kernel for heads of size"):
            choice.kernel_for(torch.zeros(1, device=DEVICE), dtype, width)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes for Linux")
@pytest.mark.parametrize(
    ("width", "capability"),
    [
        pytest.param(64, 90, id="H100"),
        pytest.param(64, 80, id="A100", marks=pytest.mark.slow),
        pytest.param(128, 80, id="A100, wide heads", marks=pytest.mark.slow),
    ],
)
def test_the_kernels_compile_for_a_gpu(width, capability, tmp_path):
    """Triton's interpreter lets pass what its compiler refuses, and does not tell when registers run out."""
    script = Path(__file__).with_name("compile_for_gpu.py")
    command = [sys.executable, str(script), str(width), "bfloat16", str(capability)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    environment.pop("TRITON_INTERPRET", None)
    made = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    launched = [line.split(":")[0] for line in made.stdout.splitlines()]
    of_a_call = {
        "forward",
        "deltas",
        "keys_gradient",
        "queries_gradient",
        "bias_gradient_by_row",
        "bias_gradient_shared",
    }
    assert launched[0] == "unpadded"
    assert of_a_call < set(launched[: launched.index("padded")])
    assert of_a_call < set(launched[launched.index("padded") :])
    around = ["norm", "norm", "gelu"]
    assert launched[-8:] == ["_cross_entropy"] * 2 + [f"_{n}_{way}" for n in around for way in ("forward", "backward")]
    spilled = [int(found) for found in re.findall(r"gradient\w*: .* (\d+) spilled", made.stdout)]
    assert len(spilled) >= 10
    assert max(spilled) <= 200, made.stdout
    between = [int(found) for found in re.findall(r"_\w+_(?:for|back)ward: .* (\d+) spilled", made.stdout)]
    assert between == [0] * 6, made.stdout
