"""The `pmlm` command. Everything heavy is imported only when a stage runs, so that help answers at once."""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.leaving import Terminated, heed_sigterm
from pipelines.upload.ending import end
from pmlm_core import __version__
from pmlm_core.errors import ConfigError, PmlmError, near


@dataclass(frozen=True)
class Command:
    """One stage: `pipelines/<name>/config.py` holds its configuration class, `run.py` what it does."""

    config_class: str
    summary: str


COMMANDS = {
    "tokenizer": Command("TokenizerConfig", "Train a SentencePiece tokenizer on a seeded sample of the corpus."),
    "preprocess": Command("PreprocessConfig", "Turn raw text into packed, masked Arrow blocks, in parallel with Ray."),
    "pretrain": Command("PretrainConfig", "Pre-train a pseudo-masked language model on blocks, with Ray Train."),
    "finetune": Command("FinetuneConfig", "Fine-tune a checkpoint for a benchmark or a task of your own."),
    "sweep": Command("SweepConfig", "Search the options of fine-tuning per benchmark, with Ray Tune."),
    "compare": Command("CompareConfig", "Say what won among runs and sweeps, and whether it is more than noise."),
    "predict": Command("PredictConfig", "Predict files of any size with a fine-tuned model, with Ray Data."),
    "fill": Command("FillConfig", "Fill the [MASK]s of a sentence with a pre-trained checkpoint."),
    "convert": Command("ConvertConfig", "Make a model folder of a published checkpoint, UniLMv2's or BERT's."),
    "doctor": Command("DoctorConfig", "Check a machine or a cluster, and what a recipe asks of it, before a long run."),
    "submit": Command("SubmitConfig", "Run a command as a job of a Ray cluster; follow, find, list and stop jobs."),
    "sync": Command("SyncConfig", "Send what MLflow has not received yet of a run or a sweep."),
    "plan": Command("PlanConfig", "Say what preprocessing and pre-training would take on any cluster: hours, dollars."),
}

_EXIT_CODES = """exit codes: 0 done; 2 the command line or the recipe is wrong, or names what is not there; 1 what it
names cannot be used, or something failed on the way; 130 after Ctrl-C, 143 after SIGTERM."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script.

    Exits with what `_EXIT_CODES` says; the error of an option is the same whenever it is found.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        heed_sigterm()
        code = _dispatch(arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except PmlmError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt as error:
        what, code = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        print(f"{what}; the same command goes on from what was finished", file=sys.stderr)
    except BrokenPipeError:  # `pmlm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk, a folder that may not be written to, a store that is away
        what = "the disk is full: " if error.errno == errno.ENOSPC else ""
        print(
            f"error: {what}{error}; mend that and give the same command again: it keeps what is finished",
            file=sys.stderr,
        )
        code = 1
    end(code)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version", "version"):
        print(f"pmlm {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise ConfigError(f"unknown command '{name}'{near(name, COMMANDS) or ';'} commands: {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    options = importlib.import_module("pipelines.options")
    config_class = getattr(importlib.import_module(f"pipelines.{name}.config"), command.config_class)
    if any(token in ("-h", "--help") for token in rest):
        options.print_help(name, config_class, command.summary)
        if more := getattr(config_class, "more_help", None):
            print(f"\n{importlib.import_module(more).text()}")
        return 0
    request = options.parse(name, config_class, command.summary, rest, tuple(COMMANDS))
    if request.action == "print_config":
        print(options.as_recipe(name, request.config), end="")
        return 0
    if check := getattr(request.config, "check_there", None):
        check()
    stage = importlib.import_module(f"pipelines.{name}.run")
    if request.action == "dry_run":
        if not hasattr(stage, "dry_run"):
            raise ConfigError(f"pmlm {name} has no dry run: it takes seconds")
        stage.dry_run(request.config)
        return 0
    code = stage.run(request.config) or 0
    if leads_to := getattr(stage, "leads_to", None):
        _propose(leads_to, request)
    return code


def _propose(leads_to: Callable[[Any, str | None], str], request: Any) -> None:
    """Print the command that comes next. The recipe is read again, with sections that nobody has looked at: whatever is
    wrong with it by now, the stage itself is done."""
    console = importlib.import_module("pipelines.console")
    try:
        command = leads_to(request.config, request.recipe)
    except (PmlmError, OSError) as error:
        console.warn(f"this stage is done, but no command can be proposed to go on: {error}")
        return
    console.next_command(command)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"pmlm {__version__}: pseudo-masked language models (UniLMv2) on your text, with Ray and MLflow",
            "",
            "usage: pmlm COMMAND [--config RECIPE.yaml] [--option value ...]",
            "",
            "commands:",
            *lines,
            "",
            "pmlm COMMAND --help lists a command's options with their defaults.",
            _EXIT_CODES,
        ]
    )


if __name__ == "__main__":
    main()
