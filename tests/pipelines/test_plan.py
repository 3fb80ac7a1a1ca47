"""`pmlm plan`: the paper's order of magnitude, invariants over any cluster, refusals, and the command itself."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cli import main
from pipelines.plan.cluster import cluster_of
from pipelines.plan.config import PlanConfig
from pipelines.plan.corpus import corpus_of
from pipelines.plan.recipe import Planned, read_recipe
from pipelines.plan.run import Line, make
from pipelines.plan.step import Step, step_on
from pmlm_core.errors import ConfigError
from pmlm_core.training.datasheet import MEASURED_MFU

ROOT = Path(__file__).parent.parent.parent
BASE = PlanConfig(recipe=str(ROOT / "recipes/pretrain/base.yaml"), corpus_gb=160)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Away from blocks that somebody may have made from the recipes."""
    monkeypatch.chdir(tmp_path)


def planned_base() -> Planned:
    return read_recipe(BASE)


def lines_of(config: PlanConfig) -> list[Line]:
    return make(config).lines


def test_the_papers_order_of_magnitude() -> None:
    """64 V100 took 20 days, 30.7k GPU-hours (docs/method.md, 5): an MFU of a tenth of the fp16 peak."""
    (line,) = lines_of(replace(BASE, gpu="V100", gpus=[64], mfu=0.11, network_gbit=100))
    assert line.gpu_hours == pytest.approx(30_700, rel=0.2)
    h100 = lines_of(replace(BASE, gpus=[64]))[0]
    assert 800 < h100.gpu_hours < 2000


def test_a_step_by_hand() -> None:
    planned = planned_base()
    step = step_on(planned, cluster_of(BASE, "bf16"), 64)
    assert step.micro_batch * step.accumulation * 64 == 7680
    assert step.products == pytest.approx(7680 * planned.flops_per_row / (64 * 989.4e12 * MEASURED_MFU))
    nbytes = 4 * planned.parameters * 2 * 63 / 64
    assert step.network_bytes == pytest.approx(nbytes)
    assert step.all_reduce == pytest.approx(nbytes / (400e9 / 8 * 0.8))
    assert step.all_reduce > step.exposed > 0
    inside = step_on(planned, cluster_of(BASE, "bf16"), 8)
    assert inside.all_reduce == pytest.approx(4 * planned.parameters * 2 * 7 / 8 / (450e9 * 0.8))
    assert step_on(planned, cluster_of(BASE, "bf16"), 1).all_reduce == 0


def test_preprocessing_by_hand() -> None:
    corpus = corpus_of(BASE, planned_base())
    assert corpus is not None
    assert corpus.hours == pytest.approx(160e9 / 64 / 10e6 / 3600)
    assert corpus.dollars == pytest.approx(160e9 / 10e6 / 3600 * 0.04)
    assert corpus.tokens == pytest.approx(160e9 / 4.5)
    assert corpus.rows == pytest.approx(corpus.tokens / 509)
    assert corpus.epochs == pytest.approx(7680 * 500_000 / corpus.rows)
    assert corpus_of(replace(BASE, corpus_gb=None), planned_base()) is None


CLUSTERS = st.builds(
    replace,
    st.just(BASE),
    gpu=st.sampled_from(["H100", "A100", "V100", "L4"]),
    mfu=st.floats(0.05, 0.6),
    gpus_per_node=st.sampled_from([1, 4, 8]),
    network_gbit=st.floats(1, 3200),
    launch_us=st.floats(0.5, 30),
    storage_gb_per_s=st.floats(0.001, 10),
    batch_size=st.sampled_from([256, 1000, 7680, 8192]),
)


@given(CLUSTERS, st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_twice_the_gpus_never_cost_fewer_gpu_hours(config: PlanConfig, gpus: int) -> None:
    numbers = [gpus << k for k in range(8) if config.batch_size % (gpus << k) == 0]
    hours = [line.gpu_hours for line in lines_of(replace(config, gpus=numbers))]
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(hours))


@given(CLUSTERS, st.sampled_from([1, 3, 5, 15]))
@settings(max_examples=20, deadline=None)
def test_where_nothing_is_waited_for_more_gpus_take_fewer_hours_down_to_a_row_each(
    config: PlanConfig, gpus: int
) -> None:
    free = replace(config, batch_size=7680, network_gbit=1e12, link_gb_per_s=1e9, storage_gb_per_s=1e6, launch_us=1e-6)
    numbers = [gpus << k for k in range(10) if 7680 % (gpus << k) == 0]
    found = lines_of(replace(free, gpus=numbers))
    assert all(later.hours < earlier.hours for earlier, later in pairwise(found))
    assert all(line.bottleneck in ("compute", "data") for line in found)


@given(CLUSTERS)
@settings(max_examples=20, deadline=None)
def test_parts_of_a_step_add_up(config: PlanConfig) -> None:
    for line in lines_of(replace(config, gpus=[1, 8])):
        step = line.step
        assert step is not None
        assert 0 <= step.exposed <= step.all_reduce
        assert step.seconds >= max(step.products, step.sending, step.data)
        assert math.isfinite(line.dollars)


def test_bottlenecks_and_what_to_change(tmp_path) -> None:
    eight, many = lines_of(replace(BASE, gpus=[8, 512]))
    assert eight.bottleneck == "compute"
    assert many.bottleneck == "network"
    assert "num_workers 512 (the recipe has 64), 15 rows a GPU in one pass" in many.advice
    assert "larger batch_size" in many.advice
    (slow,) = lines_of(replace(BASE, gpus=[8], storage_gb_per_s=0.001))
    assert (slow.bottleneck, "faster storage" in slow.advice) == ("data", True)
    small = ROOT / "recipes/pretrain/small.yaml"
    (recorded,) = lines_of(replace(BASE, recipe=str(small), gpus=[1], launch_us=30))
    assert recorded.bottleneck == "compute"
    eager = tmp_path / "eager.yaml"
    eager.write_text(
        small.read_text().replace("pretrain:\n", "pretrain:\n  torch_compile: false\n  cuda_graphs: false\n")
    )
    (little,) = lines_of(replace(BASE, recipe=str(eager), gpus=[1], launch_us=30))
    assert little.bottleneck == "little work"
    assert "no torch_compile: false and no cuda_graphs: false" in little.advice
    assert "micro_batch_size" in little.advice


def test_checkpoints_that_take_longer_than_the_time_between_them(tmp_path) -> None:
    text = Path(BASE.recipe).read_text().replace("save_steps: 5000", "save_steps: 1")
    (tmp_path / "often.yaml").write_text(text)
    (line,) = lines_of(replace(BASE, recipe=str(tmp_path / "often.yaml"), gpus=[64], storage_gb_per_s=0.2))
    assert line.bottleneck == "checkpoints"
    assert line.step is not None
    assert line.step.seconds == pytest.approx(line.step.checkpoint)


def test_a_smaller_micro_batch_where_the_usual_one_does_not_fit_and_a_refusal_where_none_does() -> None:
    small, none = lines_of(replace(BASE, gpus=[64], gpu_memory_gb=6))[0], lines_of(replace(BASE, gpu_memory_gb=2))[0]
    assert small.step is not None
    assert small.step.micro_batch < 30
    assert f"micro_batch_size {small.step.micro_batch}: what would be chosen does not fit" in small.advice
    assert none.step is None
    assert "one row needs" in none.advice
    assert "more memory" in none.advice


def test_sharing_the_model_and_computing_layers_twice_leave_room_for_more_rows() -> None:
    planned = read_recipe(replace(BASE, recipe=str(ROOT / "recipes/pretrain/large.yaml")))
    cluster = cluster_of(replace(BASE, gpu_memory_gb=9), "bf16")

    def step(**changes: Any) -> Step:
        return step_on(replace(planned, pretrain=replace(planned.pretrain, **changes)), cluster, 64)

    usual, shared, twice = step(), step(parallel="fsdp"), step(gradient_checkpointing=True)
    assert usual.micro_batch < shared.micro_batch < twice.micro_batch
    assert shared.products == pytest.approx(usual.products)
    assert twice.products == pytest.approx(usual.products * 4 / 3)


def test_traffic_of_a_shared_model_by_hand() -> None:
    planned = planned_base()
    shared = replace(planned, pretrain=replace(planned.pretrain, parallel="fsdp"))
    step = step_on(shared, cluster_of(BASE, "bf16"), 8)
    assert step.accumulation > 1
    assert step.network_bytes == pytest.approx(4 * planned.parameters * 7 / 8 * (2 * step.accumulation + 1))
    assert step.memory_bytes < step_on(planned, cluster_of(BASE, "bf16"), 8).memory_bytes


def test_numbers_of_gpus_that_cannot_share_the_batch_are_refused_in_their_line() -> None:
    odd, more, fine = lines_of(replace(BASE, gpus=[7, 10_000, 8]))
    assert odd.step is None
    assert "cannot be shared evenly" in odd.advice
    assert "fewer rows than 10,000 GPUs" in more.advice
    assert fine.step is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": ""}, "needs --recipe"),
        ({"gpus": []}, "names no number"),
        ({"gpus": [0]}, "1 or more"),
        ({"mfu": 1.5}, "mfu must be above 0 and at most 1"),
        ({"network_gbit": 0.0}, "network_gbit must be above 0"),
        ({"price_per_gpu_hour": -1.0}, "price_per_gpu_hour must be 0 or more"),
    ],
)
def test_options_out_of_range(change, said) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(BASE, **change).validate()


def test_an_unknown_gpu_needs_its_figures() -> None:
    unknown = replace(BASE, gpu="RTX 9999")
    with pytest.raises(ConfigError, match="give --peak_tflops"):
        make(unknown)
    with pytest.raises(ConfigError, match="give --gpu_memory_gb"):
        make(replace(unknown, peak_tflops=200))
    assert make(replace(unknown, peak_tflops=200, gpu_memory_gb=24, link_gb_per_s=32)).lines[0].step is not None


def test_the_command(tmp_path, capsys) -> None:
    out = tmp_path / "new" / "plan.json"
    arguments = ["plan", "--recipe", BASE.recipe, "--gpus", "8", "64", "512", "--corpus_gb", "160", "--json", str(out)]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in ("GPU-hours", "28% of 989 TFLOP/s (H100, bf16)", "preprocess", "masks repeat after 10", "512 GPUs:"):
        assert word in said
    written = json.loads(out.read_text())
    assert [line["gpus"] for line in written["pretraining"]] == [8, 64, 512]
    assert written["model"]["flops"] == pytest.approx(1.5e21, rel=0.05)
    assert written["assumptions"]["mfu"] == MEASURED_MFU
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--recipe", BASE.recipe, "--gpus", "7"])
    assert caught.value.code == 2


@pytest.mark.parametrize("name", ["demo", "mini", "small", "medium", "large"])
def test_every_recipe_has_a_plan(name, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--recipe", str(ROOT / f"recipes/pretrain/{name}.yaml"), "--gpus", "1", "--gpu", "A100"])
    assert caught.value.code == 0


def test_changes_on_the_command_line_stand_in_place_of_the_recipes(capsys) -> None:
    half = make(replace(BASE, max_steps=250_000, batch_size=3840, gpus=[8]))
    assert half.lines[0].gpu_hours == pytest.approx(make(replace(BASE, gpus=[8])).lines[0].gpu_hours / 4, rel=0.02)


def test_it_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom pipelines.cli import main\n"
        f"try: main(['plan', '--recipe', {BASE.recipe!r}])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'transformers', 'numba'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert "GPU-hours" in done.stdout
