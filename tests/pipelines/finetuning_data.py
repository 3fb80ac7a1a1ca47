"""A tiny checkpoint and tiny data sets that can be learned, for tests of fine-tuning."""

import json
from pathlib import Path
from typing import Any

import torch

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.model import PmlmConfig, PmlmForPreTraining


def make_checkpoint(folder: Path, tokenizer_dir: str, max_position_embeddings: int = 64) -> str:
    """An untrained model in the form in which pre-training leaves one."""
    tokenizer = TextTokenizer.load(tokenizer_dir)
    special = {f"{name}_token_id": token for name, token in tokenizer.special_ids.as_dict().items()}
    torch.manual_seed(0)
    config = PmlmConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_position_embeddings,
        initializer_range=0.15,
        **special,
    )
    PmlmForPreTraining(config).save_pretrained(folder)
    tokenizer.save(str(folder))
    return str(folder)


def write_reviews(folder: Path, rows: int = 60) -> str:
    """A table of sentences that say whether they are about a ship or a house."""
    folder.mkdir(parents=True)
    subjects = ("captain", "old man", "boy", "doctor", "woman", "stranger")
    verbs = ("saw", "left", "loved", "feared", "sought")
    for split, count in (("train", rows), ("dev", rows // 2), ("test", rows // 3)):
        lines = ["text\tlabel" if split != "test" else "text"]
        for number in range(count):
            label = ("ship", "house")[number * 7 % 3 % 2]
            text = f"The {subjects[number % 6]} {verbs[number % 5]} the {label}" + " and went away" * (number % 4) + "."
            lines.append(f"{text}\t{label}" if split != "test" else text)
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


def write_questions(folder: Path, rows: int = 16) -> str:
    """Questions over passages in SQuAD's form."""
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("dev", rows // 2)):
        paragraphs = []
        for number in range(count):
            name = ("Tom", "Jim", "Ben", "Huck")[number % 4]
            context = "The ship lay in the bay. " * (number % 3) + f"The captain was called {name} by the men."
            answer = {"text": name, "answer_start": context.index(name)}
            question = {"id": f"{split}{number}", "question": "Who was the captain?", "answers": [answer]}
            paragraphs.append({"context": context, "qas": [question]})
        content = {"version": "1.1", "data": [{"title": "ships", "paragraphs": paragraphs}]}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return str(folder)


def write_pairs(folder: Path, rows: int = 16) -> str:
    """Sources and targets in JSON lines."""
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("dev", rows // 2), ("test", rows // 2)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for number in range(count):
                thing = ("ship", "house", "river", "captain")[number % 4]
                pair = {"src": f"The old man saw the {thing} and went away.", "tgt": f"the {thing}"}
                file.write(json.dumps(pair) + "\n")
    return str(folder)


def options_for(task: str, model: str, data_dir: str, output: Path, **options: Any) -> dict[str, Any]:
    """Options of a very small run."""
    return {
        "task": task,
        "model": model,
        "data_dir": data_dir,
        "output_dir": str(output),
        "cache_dir": str(output / "features"),
        "max_length": 48,
        "batch_size": 8,
        "micro_batch_size": 2,
        "learning_rate": 3e-3,
        "num_train_epochs": 6,
        "logging_steps": 3,
        "precision": "fp32",
        "cpus_per_worker": 1,
        "tracking_uri": "none",
        "run_name": "run",
        **options,
    }
