"""Options of `pmlm finetune`. What is left out is taken from the task's recipe, which is the paper's."""

import re
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from pipelines.ranges import check_numbers
from pipelines.run_place import check_run_place
from pipelines.there import check_folder
from pmlm_core.errors import ConfigError
from pmlm_core.training.batching import micro_batch_size

_OPERATIONAL = frozenset(
    {
        "data_dir",
        "model",
        "output_dir",
        "upload_dir",
        "run_name",
        "cache_dir",
        "seed",
        "seeds",
        "micro_batch_size",
        "eval_batch_size",
        "logging_steps",
        "save_steps",
        "num_workers",
        "cpus_per_worker",
        "use_gpu",
        "max_failures",
        "tracking_uri",
        "experiment_name",
        "strict",
    }
)
"""Options that do not name a run: where its data and model lie (their contents do), where it runs, what it shows."""

DATA = "name the one with the task's files"
MODEL = "give a checkpoint folder that `pmlm pretrain` made, such as outputs/mini/pretrain/final"
"""What to do about a folder of data, or a model, that is not there."""

RECIPE = (
    "batch_size",
    "learning_rate",
    "warmup_ratio",
    "weight_decay",
    "num_train_epochs",
    "max_length",
    "max_target_length",
    "doc_stride",
    "label_smoothing",
    "target_mask_prob",
    "num_beams",
    "length_penalty",
    "min_target_length",
    "no_repeat_ngram_size",
)
"""Options whose default is the task's recipe."""

TASK_OPTIONS = (
    "text_column",
    "text_pair_column",
    "label_column",
    "id_column",
    "labels",
    "train_file",
    "validation_file",
    "test_file",
    "can_be_unanswerable",
)
"""Options of the general tasks, for data of one's own."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything `pmlm finetune` can be told. The same configuration again resumes the same run."""

    more_help: ClassVar[str] = "pipelines.finetune.recipes"

    task: str
    """A benchmark (cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, squad1.1, squad2.0, cnn_dailymail, xsum,
    squad_qg, squad_qg_reversed) or a task of your own: classification, regression, qa, seq2seq."""
    model: str
    """Checkpoint folder of pre-training: weights, architecture and tokenizer; at s3:// or gs:// too (fetched once)."""
    data_dir: str
    """Folder of the task's files as published (for GLUE the folder of all its tasks), or of your own files."""
    output_dir: str = "outputs/finetune"
    """Folder for runs, each in one of its own; or s3://, gs://, where they are copied as they are worked on here."""
    upload_dir: str | None = None
    """s3://, gs:// or folder to copy checkpoints and results to; where output_dir was lost, the run goes on from it."""
    run_name: str | None = None
    """Folder of this run below output_dir; left out, a name is derived from what decides the result."""
    cache_dir: str | None = None
    """Folder for encoded examples, found again by content; left out, output_dir/features."""
    from_scratch: bool = False
    """Take the checkpoint's architecture and tokenizer but fresh weights: the same model without pre-training."""

    text_column: str | None = None
    """Your own data: column of the text ("text")."""
    text_pair_column: str | None = None
    """Your own data: column of the second text."""
    label_column: str | None = None
    """Your own data: column of the label ("label")."""
    id_column: str | None = None
    """Your own data: column of the example's id; left out, rows are numbered."""
    labels: list[str] | None = None
    """Your own data: the labels, in order; left out, those of the training file."""
    train_file: str | None = None
    """Your own data: pattern of the training files in data_dir."""
    validation_file: str | None = None
    """Your own data: pattern of the development files in data_dir."""
    test_file: str | None = None
    """Your own data: pattern of the test files in data_dir."""
    can_be_unanswerable: bool | None = None
    """Your own questions: some have no answer, as in SQuAD v2.0."""
    strict: bool = False
    """Stop at the first bad row; otherwise bad rows are left out, counted, and listed in rejects.jsonl."""

    max_train_rows: int | None = None
    """Number of training examples, drawn by a fixed key; all if left out."""
    max_eval_rows: int | None = None
    """Number of development examples by which the epoch is chosen; all if left out. The final scores are on all."""
    max_predict_rows: int | None = None
    """Largest number of examples of every split to score and predict at the end; their files are then not whole."""

    batch_size: int | None = None
    """Rows of a global batch, whatever the number of workers (recipe)."""
    micro_batch_size: int | None = None
    """Rows of one forward pass of one worker; left out, as many as divide evenly and stay within a token budget, or, of
    a seed that goes on, as before: another size has other dropout."""
    learning_rate: float | None = None
    """Peak learning rate (recipe)."""
    rel_pos_lr_scale: float = 1.0
    """Learning rate of the relative position bias, as a multiple of learning_rate."""
    warmup_ratio: float | None = None
    """Share of all updates over which the learning rate rises; then it falls in equal parts (recipe)."""
    weight_decay: float | None = None
    """Decoupled weight decay of matrices (recipe)."""
    num_train_epochs: int | None = None
    """Passes over the training split (recipe)."""
    max_length: int | None = None
    """Tokens of the input, special tokens included; of the source for a generation (recipe)."""
    max_target_length: int | None = None
    """Generation: tokens of the target, closing [EOS] included (recipe)."""
    doc_stride: int | None = None
    """Question answering: tokens by which the windows of a long passage move on (recipe)."""
    label_smoothing: float | None = None
    """Generation: share of probability spread over the vocabulary (recipe)."""
    target_mask_prob: float | None = None
    """Generation: share of true target tokens hidden in training (recipe)."""
    num_beams: int | None = None
    """Generation: beams of the final decoding (recipe)."""
    eval_num_beams: int = 1
    """Generation: beams of the decoding by which epochs are chosen."""
    length_penalty: float | None = None
    """Generation: power of ((5 + length) / 6) that a beam's score is divided by (recipe)."""
    min_target_length: int | None = None
    """Generation: tokens before [EOS] is allowed (recipe)."""
    no_repeat_ngram_size: int | None = None
    """Generation: n-grams of this size do not repeat; 0 allows it (recipe)."""
    hidden_dropout_prob: float = 0.1
    """Dropout on hidden states."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout on attention weights."""
    adam_beta1: float = 0.9
    """Decay of the gradient's mean in Adam."""
    adam_beta2: float = 0.999
    """Decay of the gradient's square in Adam."""
    adam_epsilon: float = 1e-6
    """Added to Adam's denominator."""
    max_grad_norm: float | None = 1.0
    """Clip the gradient's norm to this; null only measures it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type of the matrix products; auto takes bf16 where the processor computes in it, weights stay fp32."""
    seed: int = 0
    """Of the new head, order of rows and dropout."""
    seeds: str | None = None
    """Several seeds in one command, as 1,2,3,4,5: mean, median and spread are told at the end."""
    metric_for_best_model: str | None = None
    """Figure of the development split by which epochs are chosen; left out, the task's own."""
    early_stopping_patience: int | None = None
    """Number of epochs in a row without a better one after which training stops; left out, all epochs are trained."""

    eval_batch_size: int = 32
    """Rows of one forward pass when predicting, on one worker."""
    logging_steps: int = 10
    """Updates between two lines of figures, which are means since the last."""
    save_steps: int | None = None
    """Updates between two checkpoints; left out, one is written at the end of every epoch only."""

    num_workers: int = 1
    """Worker processes that share each batch; one runs in this process, without Ray."""
    cpus_per_worker: int | None = None
    """CPU threads of a worker; left out, an even share of this machine, and 1 on a cluster that is joined."""
    use_gpu: bool = False
    """One GPU for each worker."""
    max_failures: int = 3
    """How often a lost worker may be replaced before the run gives up."""

    tracking_uri: str | None = None
    """MLflow store; left out, MLFLOW_TRACKING_URI or sqlite:///mlflow.db; "none" switches tracking off."""
    experiment_name: str = "pmlm-finetune"
    """MLflow experiment."""

    def validate(self) -> None:
        """Refuse what is out of range or contradicts itself; nothing is read from disk."""
        from pmlm_core.tasks.registry import check_name

        check_name(self.task)
        self._validate_numbers()
        check_run_place(self.output_dir, self.run_name, self.upload_dir)
        self.all_seeds()
        if self.batch_size is not None:
            micro_batch_size(self.batch_size, self.num_workers, self.micro_batch_size, limit=self.batch_size)

    def check_there(self) -> None:
        """Raises NotThereError where model or data are not there."""
        check_folder("data_dir", self.data_dir, DATA)
        check_folder("model", self.model, MODEL)

    def _validate_numbers(self) -> None:
        positive = (
            *("batch_size", "learning_rate", "num_train_epochs", "max_length", "num_beams", "eval_num_beams"),
            *("micro_batch_size", "max_train_rows", "max_eval_rows", "max_predict_rows", "eval_batch_size"),
            *("adam_epsilon", "rel_pos_lr_scale", "early_stopping_patience", "logging_steps", "save_steps"),
            *("max_grad_norm", "num_workers", "cpus_per_worker"),
        )
        check_numbers(self, positive, above=0)
        least = ("weight_decay", "max_target_length", "doc_stride", "min_target_length", "no_repeat_ngram_size", "seed")
        check_numbers(self, least, least=0)
        shares = (
            *("hidden_dropout_prob", "attention_probs_dropout_prob", "adam_beta1", "adam_beta2"),
            *("label_smoothing", "target_mask_prob", "warmup_ratio"),
        )
        check_numbers(self, shares, least=0, below=1)
        check_numbers(self, ["max_failures"], least=-1, hint=" (-1: no limit)")

    def all_seeds(self) -> list[int]:
        """The seeds to train, in the order given.

        Raises:
            ConfigError: they are no list of numbers, or one is there twice.
        """
        if self.seeds is None:
            return [self.seed]
        return seeds_in(self.seeds)

    def task_options(self) -> dict[str, Any]:
        """What `get_task` is told of one's own data."""
        given = {name: getattr(self, name) for name in TASK_OPTIONS if getattr(self, name) is not None}
        return {**given, "data_dir": self.data_dir}

    def deciding(self) -> dict[str, Any]:
        """The options that decide what is computed; the recipe's among them stay None where they are left out."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OPERATIONAL}


def seeds_in(text: str) -> list[int]:
    """The seeds of a list such as "1,2,3", in the order given.

    Raises:
        ConfigError: they are no list of numbers, or one is there twice.
    """
    parts = [part for part in re.split(r"[,\s]+", text.strip("[] ")) if part]
    if not parts or not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise ConfigError(f"seeds '{text}' must be different numbers, as 1,2,3,4,5")
    return [int(part) for part in parts]
