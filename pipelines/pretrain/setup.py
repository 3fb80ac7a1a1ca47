"""From a plan to a model, its optimizer and its data, fresh or as the newest good checkpoint left them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from pipelines.model_here import local_copy
from pipelines.pretrain.plan import WorkPlan, identity
from pipelines.pretrain.rundir import refuse_other_blocks
from pipelines.pretrain.start import digest_of
from pmlm_core.corpus.blocks import BlockSet
from pmlm_core.corpus.order import batch_rows, permute
from pmlm_core.corpus.tokenizer import CONFIG_FILE
from pmlm_core.errors import CheckpointError, NotThereError
from pmlm_core.model.collate import collate
from pmlm_core.model.compiling import can_compile, compile_parts
from pmlm_core.model.config import PmlmConfig
from pmlm_core.model.objectives import Objective
from pmlm_core.model.pretraining import PmlmForPreTraining
from pmlm_core.randomness import key
from pmlm_core.training import checkpoint
from pmlm_core.training.graphs import record
from pmlm_core.training.loader import Batch, Loader, Share
from pmlm_core.training.optimizer import build_adamw, load_optimizer_tensors
from pmlm_core.training.pretraining import blank, measure
from pmlm_core.training.sharding import shard
from pmlm_core.training.step import Precision
from pmlm_core.training.together import recompute_layers, together
from pmlm_core.training.window import Window


@dataclass
class Trainee:
    """What is being trained, and where it stands."""

    model: PmlmForPreTraining
    optimizer: torch.optim.Optimizer
    step: int
    window: Window
    state: dict[str, Any]
    """The checkpoint's JSON state; empty at the start."""


def trainee(plan: WorkPlan, precision: Precision, folder: Path | None, world: int = 1) -> Trainee:
    """Build the model; take weights, moments and step from the checkpoint in `folder`, if there is one.

    Every one of `world` workers reads the same; where the run is sharded, it then keeps its shards of it.

    Raises:
        CheckpointError: the checkpoint is of other blocks or of another architecture.
    """
    config = plan.config
    state: dict[str, Any] = {}
    if folder is not None:
        state = checkpoint.read_state(folder)
        refuse_other_blocks(state["data"], plan.data, f"checkpoint {folder}", config.data_dir)
        model = PmlmForPreTraining.from_pretrained(folder, dtype=torch.float32)
    elif config.init_checkpoint is not None:
        model = _from_other_run(plan, Path(local_copy(config.init_checkpoint)))
    else:
        torch.manual_seed(key(config.seed, "initial weights") >> 1)
        model = PmlmForPreTraining(_model_config(plan))
    if config.gradient_checkpointing:
        recompute_layers(model)
    if config.parallel == "fsdp" and world > 1:
        shard(model, precision.device, world)
    model.to(precision.device).train()  # type: ignore[arg-type]
    optimizer = build_adamw(
        model,
        learning_rate=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        rel_pos_lr_scale=config.rel_pos_lr_scale,
    )
    if folder is None:
        return Trainee(model, optimizer, 0, Window(), {})
    load_optimizer_tensors(optimizer, model, checkpoint.read_optimizer(folder), str(folder))
    return Trainee(model, optimizer, int(state["step"]), Window.from_json(state["window"]), state)


def blocks_of(plan: WorkPlan, split: str) -> BlockSet:
    """The blocks the run was started on.

    Raises:
        CheckpointError: others lie in their place now.
    """
    blocks = BlockSet.open(plan.config.data_dir, split)
    found = identity(blocks.manifest)
    if found != plan.data:
        raise CheckpointError(
            f"the blocks in {plan.config.data_dir} were replaced while the run went on: it is trained on "
            f"{plan.data.fingerprint[:12]}, they are {found.fingerprint[:12]} now. Preprocess the old inputs there "
            "again and the same command goes on, or preprocess the new ones into another folder, for a new run on them"
        )
    return blocks


def _model_config(plan: WorkPlan) -> PmlmConfig:
    config, blocks = plan.config, blocks_of(plan, "train").manifest
    settings: dict[str, Any] = dict(config.size())
    settings |= {f"{name}_token_id": token for name, token in blocks.special_ids.as_dict().items()}
    return PmlmConfig(
        vocab_size=blocks.vocab_size,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        max_position_embeddings=max(512, blocks.max_length),
        initializer_range=config.initializer_range,
        rel_pos_bins=config.rel_pos_bins,
        max_rel_pos=config.max_rel_pos,
        objective=config.objective,
        **settings,
    )


def _from_other_run(plan: WorkPlan, folder: Path) -> PmlmForPreTraining:
    config = plan.config
    if not (folder / "config.json").is_file():
        raise NotThereError(f"init_checkpoint {folder} is no checkpoint folder: it has no config.json")
    if (folder / checkpoint.MANIFEST).is_file() and (reason := checkpoint.damage(folder)):
        raise CheckpointError(f"init_checkpoint {folder} is damaged: {reason}. Take another, or a good copy of it")
    if (folder / checkpoint.STATE).is_file():
        known = checkpoint.read_state(folder).get("data", {})
        if known.get("tokenizer_fingerprint") != plan.data.tokenizer_fingerprint:
            refuse_other_blocks(known, plan.data, f"init_checkpoint {folder}", config.data_dir)
    if plan.start is not None and digest_of(str(folder)) != plan.start.sha256:
        raise CheckpointError(
            f"init_checkpoint {plan.start.path} holds other weights than when the command began. Put those of then "
            "back and the same command goes on, or choose another run_name for a run that starts from these"
        )
    _refuse_other_tokenizer(plan, folder)
    try:
        model = PmlmForPreTraining.from_pretrained(
            folder,
            dtype=torch.float32,
            objective=config.objective,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"init_checkpoint {folder} cannot be loaded ({type(error).__name__}: {text})") from error
    if model.config.vocab_size != plan.data.vocab_size:
        raise CheckpointError(
            f"init_checkpoint {folder} has {model.config.vocab_size} token embeddings, the blocks in {config.data_dir} "
            f"need {plan.data.vocab_size}: preprocess the text with the checkpoint's tokenizer"
        )
    if model.config.max_position_embeddings < plan.data.max_length:
        raise CheckpointError(
            f"init_checkpoint {folder} knows {model.config.max_position_embeddings} positions, the blocks in "
            f"{config.data_dir} have rows of {plan.data.max_length}: preprocess with a smaller max_length"
        )
    return model


def _refuse_other_tokenizer(plan: WorkPlan, folder: Path) -> None:
    """For a folder of weights alone, whose tokenizer is all that tells what its embeddings mean."""
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # nothing to tell by, but for the size of the vocabulary
    except (OSError, ValueError) as error:
        raise CheckpointError(f"init_checkpoint {folder / CONFIG_FILE} cannot be read: {error}") from None
    its = settings.get("pmlm_fingerprint") if isinstance(settings, dict) else None
    if its not in (None, plan.data.tokenizer_fingerprint):
        raise CheckpointError(
            f"init_checkpoint {folder} has tokenizer {str(its)[:12]}, but the blocks in {plan.config.data_dir} were "
            f"made with tokenizer {plan.data.tokenizer_fingerprint[:12]}: its embeddings would mean other words. "
            "Preprocess the text with the checkpoint's tokenizer"
        )


def distribute(
    model: nn.Module, plan: WorkPlan, precision: Precision, world: int, samples: Sequence[Batch]
) -> nn.Module:
    """Make ready for training: compiled, recorded, and wrapped in DDP for several workers unless it is sharded.

    Args:
        samples: micro-batches as they will come, on any device; none if nothing is left to train on.

    Raises:
        TrainingError: the passes cannot be recorded.
    """
    config = plan.config
    if config.compiles() and (config.torch_compile or can_compile(precision.device)):
        compile_parts(model)
    if config.records() and samples:
        # Full rows, wherever there are some: a batch with a short one is rare, and goes without the graph.
        sample = min(samples, key=len)
        record(model, {name: tensor.to(precision.device) for name, tensor in sample.items()}, precision)
    return together(model, precision, world)


def batch_maker(
    blocks: BlockSet, plan: WorkPlan, *, all_masked: bool = False
) -> Callable[[np.ndarray, np.ndarray], Batch]:
    """Rows by index -> tensors of fixed shape, no `attention_mask` if all rows are full; of no rows, a blank.

    `all_masked` puts [MASK] at every predicted position.
    """
    objective = Objective(plan.config.objective)

    def make(rows: np.ndarray, views: np.ndarray) -> Batch:
        if not len(rows):
            return blank(make(np.zeros(1, np.int64), np.zeros(1, np.int64)))
        wanted = blocks.rows(rows, views)
        if all_masked:
            wanted = wanted.all_shown_as(blocks.manifest.special_ids.mask)
        batch = collate(
            wanted,
            objective=objective,
            max_length=plan.data.max_length,
            max_predictions=plan.slots,
            special_ids=blocks.manifest.special_ids,
        )
        if bool(batch["attention_mask"].all()):
            # Nearly always. Seen here, on the CPU, it costs nothing; a GPU would add a bias for padding to all scores.
            del batch["attention_mask"]
        return batch

    return make


def training_loader(plan: WorkPlan, precision: Precision, rank: int, world: int, first_step: int) -> Loader:
    """This worker's micro-batches from `first_step` on."""
    config = plan.config
    blocks = blocks_of(plan, "train")
    n_rows, views = len(blocks), blocks.manifest.views
    return Loader(
        lambda step: batch_rows(n_rows, config.batch_size, config.seed, step, views),
        batch_maker(blocks, plan),
        Share(rank, world, config.batch_size, plan.micro_batch_size),
        first_step=first_step,
        max_steps=config.max_steps,
        device=precision.device,
        coming=blocks.fetch_ahead,
        told_ahead=blocks.steps_ahead(config.batch_size),
        measure=measure,
    )


class HeldOut:
    """This worker's share of the held-out rows, in view 0; iterable again and again.

    Every predicted position shows [MASK], none its own token or a random one. In training both losses can earn part by
    copying the 10 % left in place, AE at its own slot, PAR only through attention (a pseudo mask sees the conventional
    slot at its own position); here neither can, so the two ask the same question.

    The rows are drawn from all held-out ones with a fixed key, not taken from the front, where the first source's
    documents lie; every run on the same blocks is measured on the same rows.
    """

    def __init__(self, plan: WorkPlan, precision: Precision, rank: int, world: int) -> None:
        self._blocks = blocks_of(plan, "validation")
        self._make, self._device = batch_maker(self._blocks, plan, all_masked=True), precision.device
        self.rows = min(plan.config.eval_rows, len(self._blocks))
        everywhere = len(self._blocks)
        # In the order of the file again, which reads it from front to back.
        self._chosen = np.sort(permute(np.arange(self.rows), everywhere, key("held-out rows")))
        self._size, self._rank, self._world = plan.micro_batch_size, rank, world

    def __iter__(self) -> Iterator[Batch]:
        mine = self._rank * self._size
        for start in range(0, self.rows, self._world * self._size):
            rows = self._chosen[start + mine : start + mine + self._size]  # none, where only others have some left
            batch = self._make(rows, np.zeros(len(rows), np.int64))
            yield {name: tensor.to(self._device) for name, tensor in batch.items()}
