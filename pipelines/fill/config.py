"""Options of `pmlm fill`."""

from dataclasses import dataclass, field
from typing import ClassVar

from pipelines.ranges import check_numbers
from pipelines.there import check_folder
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class FillConfig:
    """Fill the [MASK]s of a sentence: pmlm fill --model FOLDER "The cat [MASK] on the mat"."""

    positional: ClassVar[str] = "text"
    dry_run: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("model", "text")

    model: str = ""
    """Checkpoint folder, as pmlm pretrain writes it; at s3:// or gs:// too (fetched once)."""
    text: list[str] = field(default_factory=list)
    """Sentences with [MASK] in them; they may also stand bare at the end of the command."""
    top_k: int = 5
    """How many tokens to show for each mask; a + marks a piece that joins what stands before it."""

    def validate(self) -> None:
        """Raises ConfigError where something is missing."""
        if not self.model:
            raise ConfigError("pmlm fill needs --model, a checkpoint folder")
        if not self.text:
            raise ConfigError('pmlm fill needs a text: pmlm fill --model FOLDER "The cat [MASK] on the mat."')
        for text in self.text:
            if "[MASK]" not in text:
                raise ConfigError(f"there is no [MASK] in {text[:80]!r}; write [MASK] where a token is to be found")
        check_numbers(self, ["top_k"], least=1)

    def check_there(self) -> None:
        """Raises NotThereError where the model is not there."""
        check_folder("model", self.model, "give a checkpoint folder that `pmlm pretrain` made")
