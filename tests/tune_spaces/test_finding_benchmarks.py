"""Benchmarks by name and by path, what importing them costs, and what is said of a file that is wrong."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pmlm_core.errors import ConfigError
from tune_spaces import registry
from tune_spaces.base import Benchmark, Budget
from tune_spaces.checks import check_benchmark
from tune_spaces.registry import BENCHMARKS, get_benchmark

GOOD = get_benchmark("rte")
MINE = """
from tune_spaces.base import Benchmark

BENCHMARK = Benchmark(
    name="mine", task="classification", metric="accuracy", space=lambda: {}, paper_grid={"batch_size": (16,)},
)
"""


def test_looking_benchmarks_up_imports_no_ray():
    code = """
import sys
from tune_spaces.registry import BENCHMARKS, get_benchmark
for name in BENCHMARKS:
    get_benchmark(name)
print(*[name for name in ("ray", "torch", "mlflow", "sklearn", "pipelines") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_copy_of_the_template_is_found_by_its_path(tmp_path, monkeypatch):
    shutil.copy(Path(registry.__file__).with_name("template.py"), tmp_path / "my_space.py")
    monkeypatch.chdir(tmp_path)
    assert get_benchmark("my_space.py").name == get_benchmark(str(tmp_path / "my_space.py")).name == "my_task"
    assert "my_task" not in BENCHMARKS
    assert not any("my_space" in name for name in sys.modules)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rtee", "'rtee' is not known; did you mean 'rte'"),
        ("RTE", "did you mean 'rte'"),
        ("squad1_1", "did you mean 'squad1.1'"),
        ("sst-2", "did you mean 'sst2'"),
        ("qwerty", "is not known; benchmarks are cnn_dailymail, .* copy tune_spaces/template.py"),
        ("nowhere.py", "nowhere.py: there is no such file"),
        ("no/where", "no/where: there is no such file"),
    ],
)
def test_names_that_are_not_known(name, says):
    with pytest.raises(ConfigError, match=says):
        get_benchmark(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A = 1\n", "defines no BENCHMARK"),
        ("BENCHMARK = {'name': 'mine'}\n", r"BENCHMARK is dict .*must be a Benchmark\(...\)"),
        ("x = 1\nBENCHMARK = Benchmark()\n", "my.py, line 2: NameError: name 'Benchmark'"),
        ("BENCHMARK = (\n", r"SyntaxError: .*line 1"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError"),
        (MINE.replace('"classification"', '"clasification"'), "task 'clasification' .* mean 'classification'"),
        (MINE.replace('"accuracy"', '"acuracy"'), "metric 'acuracy' .* mean 'accuracy'.* f1_macro"),
        (MINE.replace('"batch_size"', '"batchsize"'), "paper_grid: 'batchsize' .* mean 'batch_size'"),
        (MINE.replace('"batch_size"', '"max_length"'), "'max_length' cannot be searched.*benchmark's options"),
        (MINE.replace("(16,)", "16"), r"batch_size is 16; .*comma"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, says):
    (tmp_path / "my.py").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        get_benchmark(str(tmp_path / "my.py"))
    assert "my.py" in str(caught.value)


def test_a_good_file_is_taken(tmp_path):
    (tmp_path / "my.py").write_text(MINE)
    assert get_benchmark(str(tmp_path / "my.py")).name == "mine"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a/b"}, "name 'a/b' must be letters"),
        ({"name": ""}, "name '' must be letters"),
        ({"space": {}}, "space is dict .*function without arguments"),
        ({"paper_grid": ()}, "paper_grid is tuple"),
        ({"mode": "maximum"}, "must be 'max' or 'min'"),
        ({"seeds": ()}, "seeds is"),
        ({"seeds": 5}, "seeds is 5; write whole numbers"),
        ({"seeds": (1, 1)}, "twice"),
        ({"budget": 16}, r"budget is int 16; write for example Budget\("),
        ({"budget": Budget(num_samples=0)}, "num_samples is 0; it must be 1 or more"),
        ({"mutable": ("learningrate",)}, "mutable: .* did you mean 'learning_rate'"),
        ({"mutable": "learning_rate"}, "write a tuple"),
        ({"published": GOOD.published[0]}, "ends in a comma"),
        ({"options": {"max_lenght": 128}}, "cannot set 'max_lenght'; did you mean 'max_length'"),
        ({"options": {"batch_size": 16}}, "batch_size stands in options and in paper_grid"),
        ({"task": "regression"}, "metric 'accuracy' is no figure of task 'regression'; it has pearson, spearman"),
    ],
)
def test_fields_that_are_wrong(changes, says):
    with pytest.raises(ConfigError, match=says):
        check_benchmark(replace(GOOD, **changes), "here.py", {"max_length", "batch_size"})


def test_option_names_are_only_checked_when_they_are_given():
    unusual = replace(GOOD, options={"max_lenght": 128})
    assert check_benchmark(unusual, "here.py") is unusual


def test_metrics_depend_on_the_data_s_own_options():
    def of(task, metric, **options):
        return Benchmark("mine", task, metric, dict, {}, options=options)

    for good in (
        of("qa", "exact", can_be_unanswerable=True),
        of("qa", "exact_match"),
        of("classification", "f1"),
        of("classification", "f1", labels=["0", "1"]),
        of("seq2seq", "rouge2"),
        of("squad_qg", "meteor"),
    ):
        assert check_benchmark(good, "here.py") is good
    with pytest.raises(ConfigError, match="'exact' is no figure of task 'qa'; did you mean 'exact_match'"):
        check_benchmark(of("qa", "exact"), "here.py")
    with pytest.raises(ConfigError, match="'f1' is no figure"):
        check_benchmark(of("classification", "f1", labels=["yes", "no"]), "here.py")
