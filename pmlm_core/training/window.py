"""Figures summed between two lines of the log; part of a checkpoint, so that a resumed run logs the same numbers."""

from dataclasses import dataclass, field


@dataclass
class Window:
    """Sums since the last logged step."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    steps: int = 0

    def add(self, sums: dict[str, float], count: int) -> None:
        """Add one step's sums over `count` predictions."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += count
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Each sum over the predictions since the last logged step."""
        return {name: value / self.count for name, value in self.sums.items()}

    def clear(self) -> None:
        self.sums, self.count, self.steps = {}, 0, 0

    def to_json(self) -> dict[str, object]:
        return {"sums": self.sums, "count": self.count, "steps": self.steps}

    @classmethod
    def from_json(cls, value: dict) -> "Window":
        return cls(dict(value["sums"]), int(value["count"]), int(value["steps"]))
