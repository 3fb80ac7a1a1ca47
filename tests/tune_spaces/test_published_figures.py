"""The published figures are those of docs/method.md, 7, whose tables are typed in here row by row."""

import pytest

from tune_spaces.registry import BENCHMARKS, get_benchmark

GLUE = ("mnli", "sst2", "mrpc", "rte", "qnli", "qqp", "stsb", "cola")
GLUE_ROWS = {
    "BERT": (84.5, 93.2, 87.3, 68.6, 91.7, 91.3, 89.5, 58.9),
    "XLNet": (86.8, 94.7, 88.2, 74.0, 91.7, 91.4, 89.5, 60.2),
    "RoBERTa": (87.6, 94.8, 90.2, 78.7, 92.8, 91.9, 91.2, 63.6),
    "UniLMv2": (88.5, 95.1, 91.8, 81.3, 93.5, 91.7, 91.0, 65.2),
    "UniLMv2 without relative bias": (88.4, 95.0, 91.2, 78.1, 93.4, 91.8, 91.2, 63.8),
}
OTHERS = {
    "squad1.1": {
        "UniLMv2": "93.1/87.1",
        "UniLMv2 without relative bias": "93.0/86.7",
        "RoBERTa": "91.5/84.6",
        "BERT": "88.5/80.8",
    },
    "squad2.0": {
        "UniLMv2": "86.1/83.3",
        "UniLMv2 without relative bias": "85.2/82.4",
        "RoBERTa": "83.7/80.5",
        "BERT": "76.3/73.7",
    },
    "cnn_dailymail": {
        "Lead-3": "40.42/17.62/36.67",
        "MASS base": "42.12/19.50/39.01",
        "BERTSumAbs": "41.72/19.39/38.76",
        "T5 base": "42.05/20.34/39.40",
        "UniLM large": "43.08/20.43/40.34",
        "BART large": "44.16/21.28/40.90",
        "UniLMv2 base": "43.16/20.42/40.14",
    },
    "xsum": {
        "Lead-3": "16.30/1.60/11.95",
        "MASS base": "39.75/17.24/31.95",
        "BERTSumAbs": "38.76/16.33/31.15",
        "BART large": "45.14/22.27/37.25",
        "UniLMv2 base": "44.00/21.11/36.08",
    },
    "squad_qg": {
        "Zhang & Bansal": "18.37/22.65/46.68",
        "UniLM large": "22.78/25.49/51.57",
        "UniLMv2 base": "24.43/26.34/51.97",
    },
    "squad_qg_reversed": {
        "Zhang & Bansal": "20.76/24.20/48.91",
        "UniLM large": "24.32/26.10/52.69",
        "UniLMv2 base": "26.29/27.16/53.22",
    },
}
NAMES = {
    "squad1.1": ("f1", "exact_match"),
    "squad2.0": ("f1", "exact"),
    "cnn_dailymail": ("rouge1", "rouge2", "rougeLsum"),
    "xsum": ("rouge1", "rouge2", "rougeLsum"),
    "squad_qg": ("bleu4", "meteor", "rougeL"),
    "squad_qg_reversed": ("bleu4", "meteor", "rougeL"),
}


def published(name):
    return {each.model: dict(each.figures) for each in get_benchmark(name).published}


@pytest.mark.parametrize("name", GLUE)
def test_glue(name):
    metric = {"stsb": "pearson", "cola": "matthews"}.get(name, "accuracy")
    assert published(name) == {model: {metric: row[GLUE.index(name)]} for model, row in GLUE_ROWS.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_answers_and_generation(name):
    assert published(name) == {
        model: dict(zip(NAMES[name], map(float, row.split("/")), strict=True)) for model, row in OTHERS[name].items()
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_paper_s_comes_first_and_generation_is_on_test(name):
    benchmark = get_benchmark(name)
    if name in ("wnli", "scitldr"):
        assert not benchmark.published
        return
    assert benchmark.published[0].model in ("UniLMv2", "UniLMv2 base")
    splits = {each.split for each in benchmark.published}
    assert splits == {"test" if benchmark.metric in ("rougeLsum", "bleu4") else "dev"}


def test_the_grid_of_glue_is_the_paper_s():
    assert get_benchmark("rte").paper_grid == {
        "learning_rate": (5e-6, 1e-5, 1.5e-5, 2e-5, 3e-5),
        "batch_size": (16, 32),
        "warmup_ratio": (0.1, 0.2),
        "weight_decay": (0.01, 0.1),
        "num_train_epochs": (10, 15),
    }
    assert get_benchmark("cnn_dailymail").paper_grid["target_mask_prob"] == (0.7, 0.8)
    assert get_benchmark("xsum").paper_grid["target_mask_prob"] == (0.4, 0.5)
