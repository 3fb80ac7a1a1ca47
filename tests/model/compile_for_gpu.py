"""Compile the Triton kernels for a GPU on a machine without one: all that two calls of attention launch, and others.

    python tests/model/compile_for_gpu.py [head size] [bfloat16|float16|float32] [compute capability: 90 is an H100's]

Triton's interpreter is Python and lets pass what its compiler refuses, such as a variable that changes its type in a
loop. Prints, for each kernel, registers, bytes of them spilled to memory, and bytes of shared memory.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from pmlm_core.model.attention.plan import make_plan
from pmlm_core.model.attention.relbias import RelativeBias
from pmlm_core.model.pseudo import lay_out

BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class NoGpu:
    """What the compiler asks a driver for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: Any = None) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def compile_only(self: Any, grid: Any) -> Any:
    def launch(*arguments: Any, **options: Any) -> None:
        made = self.run(*arguments, grid=grid, warmup=True, **options)
        usage = ""
        if (BINARIES / "cuobjdump").exists():
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(made.asm["cubin"])
                file.flush()
                command = [str(BINARIES / "cuobjdump"), "-res-usage", file.name]
                usage = subprocess.run(command, capture_output=True, text=True).stdout
        registers, spilled = (re.findall(rf"{name}:(\d+)", usage) or ["?"] for name in ("REG", "STACK"))
        print(
            f"{self.__name__}: {registers[0]} registers, {spilled[0]} spilled, {made.metadata.shared} shared",
            flush=True,
        )

    return launch


def main(width: int, dtype: torch.dtype, capability: int) -> None:
    # Not before: whoever imports this file must not settle how the kernels are read.
    from pmlm_core.model import activation_tiled, cross_entropy_tiled, residual_tiled
    from pmlm_core.model.attention import tiled

    driver.set_active(NoGpu(capability))
    JITFunction.__getitem__ = compile_only
    batch, heads, n, slots = 2, 4, 512, 80
    positions_BK = torch.stack([torch.randperm(n)[:slots] for _ in range(batch)])
    for padded in (False, True):
        print("padded:" if padded else "unpadded:", flush=True)
        plan = make_plan(
            lay_out(torch.ones(batch, n), torch.ones(batch, slots, dtype=torch.int64)),
            padded=padded,
            relative=RelativeBias(heads, 32, 128),
            reach=n,
            position_ids_BN=None,
            slot_positions_BK=positions_BK,
            read_ae=False,
            dtype=dtype,
            kernel="triton",
        )
        qkv = torch.randn(batch, n + 2 * slots, 3, heads, width).to(dtype).requires_grad_()
        tiled.attend(*qkv.unbind(2), plan.full, 0.1).float().sum().backward()
    for scale in (None, torch.ones(4)):
        logits = torch.randn(4, 30522).to(dtype)
        cross_entropy_tiled.cross_entropy_(logits, torch.arange(4), -100, 0.0 if scale is None else 0.1, scale)
    states, vectors = torch.randn(2, 4, 8, 768).to(dtype).requires_grad_(), torch.randn(3, 768)
    random = torch.ones(4 * 8 + 768, dtype=torch.int32)
    for p, uses in ((0.1, 2), (0.0, 1)):
        made = residual_tiled.add_and_norm(states[0], vectors[0], states[1], *vectors[1:], 1e-5, p, random, dtype)
        sum(x.float().sum() for x in made[:uses]).backward()
    inner = torch.randn(4, 8, 3072).to(dtype).requires_grad_()
    activation_tiled.bias_gelu(inner, torch.randn(3072)).float().sum().backward()


if __name__ == "__main__":
    width, dtype, capability = [*sys.argv[1:], *("64", "bfloat16", "90")[len(sys.argv) - 1 :]]
    main(int(width), getattr(torch, dtype), int(capability))
