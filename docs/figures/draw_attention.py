"""Draws docs/figures/pseudo_mask_attention.svg: who attends to whom, asked of the code's own visibility rule.

    python docs/figures/draw_attention.py

The example is the paper's: six tokens, factorization order (4, 5) then 2. Plain SVG, nothing but torch needed;
the picture has a card of its own and follows the reader's light or dark scheme.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from pmlm_core.model.pseudo import CONTEXT, PSEUDO, TRUE, visible

OUTPUT = Path(__file__).with_name("pseudo_mask_attention.svg")
MASKED = (2, 4, 5)
CELL, GAP = 40, 16  # side of a cell; space between groups
LEFT, TOP = 236, 214  # of the matrix
WIDTH = 900

STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de; }
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 22px; font-weight: 650; }
  .small { font-size: 14px; fill: #59636e; }
  .token { font-size: 16px; font-weight: 600; text-anchor: middle; fill: #ffffff; }
  .sub { font-size: 11px; }
  .position { font-size: 12px; text-anchor: middle; fill: #59636e; }
  .group { font-size: 14px; font-weight: 600; }
  .middle { text-anchor: middle; }
  .end { text-anchor: end; }
  .hidden { fill: #f1f3f5; }
  .context { fill: #2f6fde; } .masked { fill: #7a9be8; } .pseudo { fill: #e0742a; } .true { fill: #2a9156; }
  .line { stroke: #8c959f; stroke-width: 1.5; fill: none; }
  .predicts { font-size: 15px; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #151b23; stroke: #3d444d; }
    text { fill: #f0f6fc; }
    .small, .position { fill: #9198a1; }
    .hidden { fill: #212830; }
    .context { fill: #3f7fee; } .masked { fill: #6585d4; } .pseudo { fill: #e8833a; } .true { fill: #2f9e60; }
    .token { fill: #ffffff; }
  }
"""


@dataclass(frozen=True)
class Slot:
    """One token of the sequence: where it stands, what it is, when it is given."""

    kind: int
    position: int
    step: int

    @property
    def look(self) -> str:
        if self.kind == CONTEXT:
            return "masked" if self.position in MASKED else "context"
        return "pseudo" if self.kind == PSEUDO else "true"

    @property
    def name(self) -> str:
        if self.look == "masked":
            return "[M]"
        return "[P]" if self.kind == PSEUDO else f"x{self.position}"


GROUPS = [
    ("context: with conventional masks", [Slot(CONTEXT, p, 0) for p in range(1, 7)]),
    ("step 1: predicts 4, 5", [Slot(PSEUDO, 4, 1), Slot(PSEUDO, 5, 1), Slot(TRUE, 4, 1), Slot(TRUE, 5, 1)]),
    ("step 2: predicts 2", [Slot(PSEUDO, 2, 2), Slot(TRUE, 2, 2)]),
]
SLOTS = [slot for _, slots in GROUPS for slot in slots]


def offsets() -> list[int]:
    """Distance of every slot's cell from the edge of the matrix."""
    places, at = [], 0
    for _, slots in GROUPS:
        places += [at + i * CELL for i in range(len(slots))]
        at += len(slots) * CELL + GAP
    return places


def rule() -> list[list[bool]]:
    """visible[query][key], from the function the model itself uses."""
    kinds, steps = (torch.tensor([getattr(slot, name) for slot in SLOTS]) for name in ("kind", "step"))
    return visible(kinds[:, None], steps[:, None], kinds, steps).tolist()


def token(name: str, x: float, y: float) -> str:
    """The token's name, its number as a subscript."""
    if name.startswith("x"):
        name = f'x<tspan class="sub" dy="4">{name[1:]}</tspan>'
    return f'<text class="token" x="{x}" y="{y}">{name}</text>'


def chip(slot: Slot, x: float, y: float) -> str:
    box = f'<rect class="{slot.look}" x="{x}" y="{y}" width="{CELL - 4}" height="{CELL - 4}" rx="8"/>'
    return box + token(slot.name, x + CELL / 2 - 2, y + CELL / 2 + 4)


def brackets(places: list[int]) -> list[str]:
    """Names of the groups over the columns, with a line each."""
    parts, first = [], 0
    for title, slots in GROUPS:
        x0 = LEFT + places[first]
        x1 = LEFT + places[first + len(slots) - 1] + CELL - 4
        lines = title.split(": ")
        parts.append(f'<path class="line" d="M{x0} {TOP - 72} v-6 H{x1} v6"/>')
        for i, line in enumerate(lines):
            y = TOP - 86 - 17 * (len(lines) - 1 - i)
            look = "group" if i == 0 else "small"
            parts.append(f'<text class="{look} middle" x="{(x0 + x1) / 2}" y="{y}">{line}</text>')
        first += len(slots)
    return parts


def rows(places: list[int]) -> list[str]:
    parts = []
    for slot, place, seen in zip(SLOTS, places, rule(), strict=True):
        y = TOP + place
        parts.append(chip(slot, LEFT - 56, y))
        parts.append(f'<text class="small end" x="{LEFT - 70}" y="{y + 23}">{describe(slot)}</text>')
        for key, column, may in zip(SLOTS, places, seen, strict=True):
            look = key.look if may else "hidden"
            parts.append(
                f'<rect class="{look}" x="{LEFT + column}" y="{y}" width="{CELL - 4}" height="{CELL - 4}" rx="6"/>'
            )
        parts += prediction(slot, y)
    return parts


def describe(slot: Slot) -> str:
    if slot.kind == CONTEXT:
        return "conventional mask" if slot.look == "masked" else "token"
    return f"pseudo mask, step {slot.step}" if slot.kind == PSEUDO else f"true token, step {slot.step}"


def prediction(slot: Slot, y: int) -> list[str]:
    """What is read at the end of a row."""
    if slot.look not in ("masked", "pseudo"):
        return []
    x = LEFT + offsets()[-1] + CELL + 10
    loss = "AE" if slot.look == "masked" else "PAR"
    target = f'x<tspan class="sub" dy="4">{slot.position}</tspan>'
    return [
        f'<path class="line" d="M{x} {y + 18} h24 m-6 -5 l6 5 l-6 5"/>',
        f'<text class="predicts" x="{x + 34}" y="{y + 23}">{target}<tspan class="small" dy="-4"> {loss}</tspan></text>',
    ]


def legend(y: int) -> list[str]:
    entries = [
        ("context", "context token"),
        ("masked", "conventional mask [M]"),
        ("pseudo", "pseudo mask [P]"),
        ("true", "true token"),
        ("hidden", "may not be seen"),
    ]
    parts, x = [], 40
    for look, text in entries:
        parts.append(f'<rect class="{look}" x="{x}" y="{y}" width="20" height="20" rx="5"/>')
        parts.append(f'<text class="small" x="{x + 28}" y="{y + 15}">{text}</text>')
        x += 62 + round(6.9 * len(text))
    return parts


def draw() -> str:
    """The whole picture, as SVG."""
    places = offsets()
    bottom = TOP + places[-1] + CELL
    height = bottom + 76
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="Attention between context, pseudo masks and true tokens">',
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="16"/>',
        '<text class="title" x="40" y="46">Two objectives in one forward pass</text>',
        '<text class="small" x="40" y="70">A row is a query; the coloured cells are the keys it sees. '
        "Factorization order: positions 4 and 5 together, then 2.</text>",
        *brackets(places),
    ]
    for slot, place in zip(SLOTS, places, strict=True):
        x = LEFT + place
        parts.append(chip(slot, x, TOP - 64))
        parts.append(f'<text class="position" x="{x + CELL / 2 - 2}" y="{TOP - 10}">{slot.position}</text>')
    parts.append(f'<text class="small end" x="{LEFT - 20}" y="{TOP - 10}">position</text>')
    parts.append(f'<text class="group" x="{LEFT + places[-1] + CELL + 10}" y="{TOP - 10}">predicts</text>')
    parts += rows(places)
    parts += legend(bottom + 30)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(draw(), encoding="utf-8")
    print(f"wrote {OUTPUT}")
