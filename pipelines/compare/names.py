"""Names and values as people write them."""

from typing import Any

_BENCHMARKS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "stsb": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
    "squad1.1": "SQuAD 1.1",
    "squad2.0": "SQuAD 2.0",
    "cnn_dailymail": "CNN/DailyMail",
    "xsum": "XSum",
    "squad_qg": "SQuAD question generation",
    "squad_qg_reversed": "SQuAD question generation (reversed)",
    "scitldr": "SciTLDR",
}
_FIGURES = {
    "f1": "F1",
    "f1_macro": "macro F1",
    "exact_match": "exact match",
    "exact": "exact match",
    "matthews": "Matthews' correlation",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu4": "BLEU-4",
    "meteor": "METEOR",
}
_OPTIONS = {
    "learning_rate": "lr",
    "batch_size": "batch",
    "num_train_epochs": "epochs",
    "warmup_ratio": "warm-up",
    "rel_pos_lr_scale": "position lr scale",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention dropout",
    "target_mask_prob": "target masking",
}


def benchmark_title(name: str) -> str:
    """What a benchmark is called; what sets its runs apart stays behind its name.

    >>> benchmark_title("rte"), benchmark_title("rte, other dev examples (1f0c2ab3)")
    ('RTE', 'RTE, other dev examples (1f0c2ab3)')
    """
    benchmark, comma, apart = name.partition(", ")
    return _BENCHMARKS.get(benchmark, benchmark) + comma + apart


def figure_title(name: str) -> str:
    return _FIGURES.get(name, name)


def spoken(option: str) -> str:
    """An option's name in a label.

    >>> spoken("num_train_epochs"), spoken("length_penalty")
    ('epochs', 'length penalty')
    """
    return _OPTIONS.get(option, option.replace("_", " "))


def shown(value: Any) -> str:
    """An option's value in a label: three significant digits.

    >>> shown(2e-05), shown(0.00012345), shown(16), shown(0.1), shown(None)
    ('2e-5', '1.23e-4', '16', '0.1', 'none')
    """
    if value is None:
        return "none"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.3g}" if abs(value) < 1e6 else f"{value:.3e}"


def signed(value: float) -> str:
    """One digit after the point and a true minus, two where there would be only zeros.

    >>> signed(-0.44), signed(4.0), signed(0.01)
    ('−0.4', '4.0', '0.01')
    """
    return f"{value or 0.0:.{digits(value)}f}".replace("-", "−")  # no minus before nothing


def digits(value: float) -> int:
    return 1 if value == 0 or abs(value) >= 0.095 else 2
