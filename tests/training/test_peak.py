"""The peak rate that MFU is measured against."""

import time

import pytest
import torch

from pmlm_core.training.peak import datasheet, peak


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA GH200 480GB", "bf16", 989.4),
        ("NVIDIA A100-SXM4-40GB", "fp32", 19.5),
        ("Tesla V100-SXM2-32GB", "fp16", 125),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("AMD Instinct MI300X", "bf16", 1307.4),
    ],
)
def test_data_sheets(name: str, precision: str, tera: float) -> None:
    found = datasheet(name, precision)
    assert found is not None
    assert found.rate == pytest.approx(tera * 1e12)


@pytest.mark.parametrize("name", ["NVIDIA A10", "NVIDIA GeForce RTX 4090", "cpu", ""])
def test_an_unknown_gpu_is_not_guessed(name: str) -> None:
    assert datasheet(name, "bf16") is None


def test_a_cpu_is_measured_once_and_beats_a_plain_product() -> None:
    found = peak("cpu", "fp32")
    assert "measured" in found.source
    a_SS = torch.randn(512, 512)
    a_SS @ a_SS
    start = time.perf_counter()
    for _ in range(4):
        a_SS @ a_SS
    plain = 4 * 2 * 512**3 / (time.perf_counter() - start)
    # The margin is for a machine shared with others; a wrong factor (2, or bytes for operations) would exceed it.
    assert 0.3 * plain < found.rate < 1e15
    assert peak("cpu", "fp32") is found


def test_slow_bf16_does_not_take_long() -> None:
    start = time.perf_counter()
    assert peak("cpu", "bf16").rate > 1e6
    assert time.perf_counter() - start < 10
