"""FlexAttention, as benchmarks/attention.py has it run beside our kernels, computes what they do."""

from pathlib import Path

import pytest
import torch

from pmlm_core.model.attention import reference

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_adds_and_hides_what_the_reference_does(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from attention import flex
    from attention_problem import Problem

    # Compiled, it would be slow on a CPU; as it is, it computes the same.
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    problem = Problem(2, 32, 2, 16, torch.float32, torch.device("cpu"), dropout=0.0)
    q, k, v = problem.fused[:, :, :3].unbind(2)
    calls = problem.calls(True, torch.float32)
    with torch.no_grad():
        got = flex()(q, k, v, calls, 0.0)
        want = reference.attend(q, k, v, [reference.dense(call, problem.rows) for call in calls], 0.0)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
