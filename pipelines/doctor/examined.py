"""A place looked at from everywhere, and left as it was."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.doctor.demands import Place
from pipelines.doctor.nodes import Answer, Nodes
from pipelines.doctor.places import Seen, look
from pipelines.doctor.planted import Planted
from pipelines.tracking.patience import Attempt


@dataclass(frozen=True)
class Examined:
    """What came of a place. `failure`: the command's own machine cannot use it, or give up within the time limit."""

    place: Place
    failure: str | None = None
    touched: Mapping[str, Answer] = field(default_factory=dict)
    answered: Mapping[str, bool] = field(default_factory=dict)
    rename_failure: str | None = None
    here: Seen | None = None
    seen: Mapping[str, Answer] = field(default_factory=dict)


def examine(place: Place, nodes: Nodes) -> Examined:
    """Write, or only look, from here and from every node; what was written is removed."""
    if not place.written:
        attempt = Attempt(lambda: look(place.path), nodes.timeout, "doctor-look")
        if attempt.failure is not None:
            return Examined(place, attempt.failure)
        return Examined(place, here=attempt.result, seen=nodes.ask("look", place.path))
    late = threading.Event()
    planting = Attempt(lambda: _plant(place.path, late), nodes.timeout, "doctor-plant")
    if planting.result is None:
        late.set()
        return Examined(place, planting.failure)
    planted, names = planting.result, {label: str(number) for number, label in enumerate(nodes.labels)}
    each = {label: (name,) for label, name in names.items()}
    try:
        touched = nodes.ask("touch", planted.probe, each=each)
        answered = Attempt(
            lambda: {label: planted.answered(name) for label, name in names.items()}, nodes.timeout, "doctor-read"
        )
        renaming = Attempt(planted.rename_failure if place.renames else lambda: None, nodes.timeout, "doctor-rename")
        wrote = [label for label, answer in touched.items() if answer.failure is None and answer.value.wrote]
        if not all((answered.result or {}).get(label) for label in wrote):
            nodes.ask("tidy", planted.probe, each=each)
    finally:
        Attempt(lambda: planted.remove(list(names.values())), nodes.timeout, "doctor-remove")
    return Examined(place, answered.failure, touched, answered.result or {}, renaming.result or renaming.failure)


def _plant(folder: str, late: threading.Event) -> Planted:
    planted = Planted(folder)
    if late.is_set():  # nobody waits for it any more
        planted.remove([])
    return planted
