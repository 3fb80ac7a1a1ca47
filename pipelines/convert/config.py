"""Options of `pmlm convert`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pipelines.there import check_exists
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class ConvertConfig:
    """A checkpoint of UniLMv2 or BERT as a model folder: pmlm convert --weights unilm2-base-uncased.bin"""

    needs: ClassVar[tuple[str, ...]] = ("weights", "output_dir")

    weights: str = ""
    """The checkpoint's weights (.bin, .safetensors or their .index.json), or the folder they lie in; local, s3:// or
    gs://."""
    model_config: str = ""
    """Its configuration; left out, NAME-config.json or config.json beside the weights."""
    vocab: str = ""
    """Its vocabulary; left out, NAME-vocab.txt, vocab.txt or tokenizer.json beside the weights."""
    cased: bool | None = None
    """Whether text keeps capital letters and accents; left out, as tokenizer.json says or the vocabulary's
    tokens show."""
    pseudo_token: Literal["[MASK]", "[PSEUDO]"] = "[MASK]"
    """What [P] is: [MASK], as in the authors' fine-tuning kit, or a token of that name in the vocabulary."""
    output_dir: str = ""
    """Folder for the model and its tokenizer; local, s3:// or gs://."""

    def validate(self) -> None:
        """Raises ConfigError where something is missing."""
        if not self.weights:
            raise ConfigError("pmlm convert needs --weights, for example unilm2-base-uncased.bin")
        if not self.output_dir:
            raise ConfigError("pmlm convert needs --output_dir: the folder for the model and its tokenizer")

    def check_there(self) -> None:
        """Raises NotThereError where a file is not there."""
        for name in ("weights", "model_config", "vocab"):
            if path := getattr(self, name):
                check_exists(name, path)
