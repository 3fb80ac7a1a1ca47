"""The figure in the documentation is the one the code draws now."""

import importlib.util
import sys
from pathlib import Path
from xml.etree import ElementTree

DRAWING = Path(__file__).parents[2] / "docs" / "figures" / "draw_attention.py"


def test_figure_is_up_to_date_and_shows_the_rule():
    spec = importlib.util.spec_from_file_location("draw_attention", DRAWING)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_attention"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    svg = module.draw()
    assert svg == module.OUTPUT.read_text(encoding="utf-8"), "run: make figures"
    cells = [r for r in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect") if r.get("rx") == "6"]
    assert len(cells) == 12 * 12
    assert sum(cell.get("class") != "hidden" for cell in cells) == 6 * 6 + 6 * 6 + 2 * 2 + 2 * 2 + 3 + 3
