"""Summarization: CNN/DailyMail (See et al., 2017) and XSum (Narayan et al., 2018).

JSON lines or Parquet with `src`/`tgt` or the hub's `article`/`highlights` and `document`/`summary`; for CNN/DailyMail
also the `.story` files (`stories.py`). Highlights are the lines of the target, as ROUGE-Lsum wants them.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pmlm_core.tasks import stories
from pmlm_core.tasks.base import BadRow, Recipe, SourceTarget, Task
from pmlm_core.tasks.files import SPLIT_NAMES, find_files, name_patterns
from pmlm_core.tasks.seq2seq import FORMS, generation_task, read_pairs

# Word-drop: the paper's authors give 0.7-0.8 and 0.4-0.5; trigram blocking is theirs too.
RECIPES = {
    "cnn_dailymail": Recipe(
        batch_size=64,
        learning_rate=7e-5,
        warmup_ratio=0.02,
        weight_decay=0.01,
        num_train_epochs=14,
        max_length=608,
        max_target_length=160,
        label_smoothing=0.1,
        target_mask_prob=0.7,
        num_beams=5,
        length_penalty=0.7,
        no_repeat_ngram_size=3,
    ),
    "xsum": Recipe(
        batch_size=64,
        learning_rate=7e-5,
        warmup_ratio=0.02,
        weight_decay=0.01,
        num_train_epochs=14,
        max_length=720,
        max_target_length=48,
        label_smoothing=0.1,
        target_mask_prob=0.4,
        num_beams=5,
        length_penalty=0.6,
        no_repeat_ngram_size=3,
    ),
}
_FOLDERS = {"cnn_dailymail": ("", "cnn_dailymail", "3.0.0"), "xsum": ("", "xsum", "default", "data")}


def summarization_task(name: str) -> Task:
    """The task "cnn_dailymail" or "xsum"."""
    task = generation_task(name, partial(_read, name), RECIPES[name])
    return replace(task, lead_sentences=3 if name == "cnn_dailymail" else 1)


def _read(name: str, data_dir: str, split: str) -> Iterator[SourceTarget | BadRow]:
    if name == "cnn_dailymail" and (urls := stories.url_list(data_dir, split)):
        return stories.read(data_dir, urls)
    stems = SPLIT_NAMES[split]
    patterns = name_patterns([*(f"{name}.{stem}" for stem in stems), *stems], FORMS)
    files = find_files(data_dir, patterns, what=f"split '{split}' of task '{name}'", folders=_FOLDERS[name])
    return read_pairs(files, needs_target=split != "test")
