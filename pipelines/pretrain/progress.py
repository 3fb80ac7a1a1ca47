"""The lines that pre-training shows: losses and accuracies of AE and PAR, speed, time left."""

from pipelines.follow import Follower
from pipelines.tracking.journal import Entry


class Progress(Follower):
    """Follows a pre-training run."""

    def _line(self, entry: Entry) -> str:
        m = entry.metrics
        parts = [f"step {entry.step}/{self._max_steps}"]
        for prefix, label in (("train/", ""), ("eval/", "held-out ")):
            if f"{prefix}loss" not in m:
                continue
            parts.append(f"{label}loss {m[prefix + 'loss']:.4f}")
            for name, key in (("AE", "ae"), ("PAR", "par")):
                loss, accuracy = (m.get(f"{prefix}{key}_{what}") for what in ("loss", "accuracy"))
                if loss is not None:
                    right = f" ({accuracy:.1%} right)" if accuracy is not None and prefix == "eval/" else ""
                    parts.append(f"{label}{name} {loss:.4f}{right}")
        if "learning_rate" in m:
            parts.append(f"lr {m['learning_rate']:.2e}")
        if "tokens_per_second" in m:
            parts.append(f"{m['tokens_per_second']:,.0f} tokens/s")
            if left := self._left(entry):
                parts.append(f"{left} left")
            self._previous = entry
        return "  ".join(parts) if len(parts) > 1 else ""
