"""Model sizes by name: the BERT miniatures, base and large (docs/method.md, 4). No torch: the command line reads it."""

from dataclasses import dataclass
from types import MappingProxyType

from pmlm_core.errors import ConfigError, near


@dataclass(frozen=True)
class ModelSize:
    """What a preset fixes; the names are those of `PmlmConfig`."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int


def _size(layers: int, hidden: int, heads: int) -> ModelSize:
    return ModelSize(layers, hidden, heads, 4 * hidden)


PRESETS = MappingProxyType(
    {
        "tiny": _size(2, 128, 2),
        "mini": _size(4, 256, 4),
        "small": _size(4, 512, 8),
        "medium": _size(8, 512, 8),
        "base": _size(12, 768, 12),
        "large": _size(24, 1024, 16),
    }
)


def preset(name: str) -> ModelSize:
    """The size called `name`.

    >>> preset("base").hidden_size
    768

    Raises:
        ConfigError: no preset has that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset '{name}' is not known{near(name, PRESETS) or ';'} presets are {', '.join(PRESETS)}")
    return PRESETS[name]
