"""`pmlm convert`: a published checkpoint, read, put into our model, written as a folder that every command takes."""

import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

from pipelines.console import counted, made, next_command, say, warn
from pipelines.convert.config import ConvertConfig
from pipelines.convert.weights import read_weights, weights_file
from pipelines.output_folder import check_output_dir
from pipelines.quantities import count_text
from pmlm_core import storage
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.corpus.tokenizer_json import TOKENIZER_JSON
from pmlm_core.errors import ConfigError, DataError, NotThereError


def run(config: ConvertConfig) -> None:
    """Convert and write.

    Raises:
        NotThereError: a file is not there.
        CheckpointError, DataError: a file is not what it should be.
        ConfigError: there is a model in the output folder already.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    converted, tokenizer = _converted(config)
    output_dir = storage.normalise(config.output_dir)
    with tempfile.TemporaryDirectory(prefix="pmlm-convert-") as folder:
        converted.model.save_pretrained(folder)
        # By the configuration a folder is known as a model, so that comes last.
        names = sorted((path.name for path in Path(folder).iterdir()), key=lambda name: name == "config.json")
        tokenizer.save(output_dir, model_max_length=converted.model.config.max_position_embeddings)
        for name in names:
            storage.copy_file(Path(folder, name), storage.join(output_dir, name))
    made("model", config.output_dir)
    model = shlex.quote(config.output_dir)
    next_command(
        f'pmlm fill --model {model} "The cat [MASK] on the mat."'
        if converted.has_head
        else f"pmlm finetune --task classification --model {model} --data_dir YOUR_DATA"
    )


def dry_run(config: ConvertConfig) -> None:
    """Read and convert all, and write nothing."""
    _converted(config)
    say(f"would write {config.output_dir}")


def _converted(config: ConvertConfig) -> tuple[Any, TextTokenizer]:
    from pmlm_core.model.published import check_model_type, convert

    config.validate()
    check_output_dir(config.output_dir)
    if storage.exists(storage.join(storage.normalise(config.output_dir), "config.json")):
        raise ConfigError(f"output_dir {config.output_dir} holds a model already; choose another one")
    weights = weights_file(config.weights)
    settings_file = config.model_config or _beside(weights, "config.json", "--model_config")
    settings = _read_json(settings_file)
    check_model_type(settings, settings_file)
    vocabulary = config.vocab or _beside(weights, "vocab.txt", "--vocab", TOKENIZER_JSON)
    tokenizer = TextTokenizer.load(vocabulary, cased=config.cased, pseudo_token=config.pseudo_token)
    converted = convert(read_weights(weights), settings, tokenizer.special_ids, weights)
    model = converted.model.config
    if tokenizer.vocab_size > model.vocab_size:
        raise DataError(
            f"{vocabulary}: {tokenizer.vocab_size:,} tokens, but the model has {model.vocab_size:,}; give the "
            "vocabulary that belongs to it"
        )
    say(
        f"{model.num_hidden_layers} layers x {model.hidden_size}, {model.num_attention_heads} heads, "
        f"{model.max_position_embeddings} positions, {model.vocab_size:,} tokens, "
        + (f"relative bias in {model.rel_pos_bins} bins" if model.rel_pos_bins else "no relative bias")
        + f"; {count_text(converted.model.num_parameters())} parameters"
    )
    if converted.left_out:
        names, more = ", ".join(converted.left_out[:3]), ", ..." * (len(converted.left_out) > 3)
        say(f"left out, for our model has no such part: {counted(len(converted.left_out), 'weight')} ({names}{more})")
    if not converted.has_head:
        warn("it has no output layer over the vocabulary: fresh weights stand there until it is trained")
    return converted, tokenizer


def _beside(weights: str, ending: str, option: str, *others: str) -> str:
    """`unilm2-base-uncased-vocab.txt`, `vocab.txt` or one of the others, beside `unilm2-base-uncased.bin`."""
    path, query = storage.split_query(weights) if storage.is_remote(weights) else (weights, "")
    folder, _, name = path.rpartition("/")
    tried = [f"{name.rpartition('.')[0]}-{ending}", ending, *others]
    for each in tried:
        if storage.size(found := storage.with_query(f"{folder}/{each}", query)) is not None:
            return found
    raise NotThereError(f"{folder}: neither {' nor '.join(tried)} lies there beside the weights; name it by {option}")


def _read_json(path: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        raise NotThereError(f"model_config {path}: no such file") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); give the checkpoint's configuration") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}; give the checkpoint's configuration, an object")
    return found
