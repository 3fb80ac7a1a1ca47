"""The comparison page: its text and size, and its behaviour in a real browser."""

import base64
import hashlib
import itertools
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, chromium
from comparing_data import Sweep, make_finetune, make_sweep

from pipelines.compare.config import CompareConfig
from pipelines.compare.page.axes import fitting, linear, logarithmic, nice_step
from pipelines.compare.run import run

HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>&amp; '
needs_browser = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two benchmarks, one with runs that bear hostile names."""
    root = tmp_path_factory.mktemp("page")
    make_sweep(root, Sweep("night", "rte", trials=12, hostile=HOSTILE))
    make_sweep(root, Sweep("<b>hyper", "rte", "asha", trials=8, stopped=4, skill=6.0, seed=2))
    make_sweep(root, Sweep("night", "cola", trials=7, stopped=1))
    make_finetune(root, "rte", "by-hand", 60.0, (1, 2), None)
    run(CompareConfig(folders=[str(root)], output_dir=str(root / "out"), resamples=200))
    return root / "out" / "index.html"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all: starting it takes longer than the tests."""
    with browser() as opened:
        yield opened


@pytest.fixture
def page(window: Browser, made: Path) -> Browser:
    """The page, freshly opened by a reader who has chosen nothing."""
    window.complaints.clear()
    window.requests.clear()
    window.size(1280, 900)
    window.prefer("light")
    window.open(made)
    window.evaluate("localStorage.clear()")
    window.open(made)
    return window


class Outline(HTMLParser):
    """Tags in order, and whether they are closed as they were opened."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_stands_alone(made: Path):
    text = made.read_text()
    outline = Outline(text)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, value)
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [meta["content"] for meta in outline.all("meta") if meta.get("http-equiv")]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 2
    for content in [*scripts, *re.findall(r"<style>(.*?)</style>", text, re.S)]:
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in str(policy)
    assert "unsafe" not in str(policy)


def test_headings_are_in_order_and_names_are_inert(made: Path):
    outline = Outline(made.read_text())
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert not outline.all("img")
    assert not outline.all("b")
    assert len(outline.all("script")) == 3  # two that run and the data
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_page_of_a_hundred_trials_is_small(tmp_path: Path):
    make_sweep(tmp_path, Sweep("large", "rte", trials=100, stopped=30, failed=3, finalists=4, seeds=5))
    run(CompareConfig(folders=[str(tmp_path)], output_dir=str(tmp_path / "out"), resamples=100))
    assert (tmp_path / "out" / "index.html").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("group_by", "sweep"),
    [
        ("sweep", Sweep("a", "rte", trials=4, stopped=1)),
        ("learning_rate", Sweep("a", "rte", trials=2, stopped=0, failed=0, finalists=0)),
        ("configuration", Sweep("a", "rte", trials=1, stopped=0, failed=0, finalists=0)),
        ("configuration", Sweep("a", "rte", trials=2, stopped=1, failed=1, finalists=0)),
        ("configuration", Sweep("a", "rte", trials=2, stopped=0, failed=2, finalists=0)),
    ],
)
def test_a_page_of_little_is_whole(tmp_path: Path, group_by: str, sweep: Sweep):
    make_sweep(tmp_path, sweep)
    run(CompareConfig(folders=[str(tmp_path)], output_dir=str(tmp_path / "out"), resamples=100, group_by=group_by))
    text = (tmp_path / "out" / "index.html").read_text()
    Outline(text)
    assert "None" not in text
    assert "nan" not in text.replace("finance", "")


@needs_browser
def test_nothing_complains_and_nothing_is_fetched(page: Browser):
    assert page.evaluate("window.hacked") is None
    for button in range(page.evaluate("document.querySelectorAll('button').length")):
        page.evaluate(f"document.querySelectorAll('button')[{button}].click()")
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file://", "data:"))] == []
    assert page.evaluate("document.querySelectorAll('svg .t[data-r]').length") > 100


@needs_browser
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(page: Browser, made: Path, width: int):
    page.size(width, 740, mobile=width < 500)
    page.open(made)
    assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [width, width]
    # What is wider scrolls in a place of its own, which the keyboard reaches.
    wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert page.evaluate(f"{wide}.every((one) => one.tabIndex === 0)")


@needs_browser
def test_a_keyboard_goes_through_the_trials(page: Browser):
    focused = "document.activeElement.getAttribute('data-r')"
    status = "document.getElementById('status').textContent"
    hint = page.evaluate(status)
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(80):
        page.press("Tab")
        if page.evaluate("document.activeElement.matches('.t[data-r]')"):
            break
    first = page.evaluate(focused)
    assert first is not None
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    told = page.evaluate(status)
    assert told != hint
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") in told
    page.press("ArrowRight")
    assert page.evaluate(focused) != first
    assert page.evaluate(status) not in (told, hint)
    # It stands out in every plot of its section, and in the table.
    lit = page.evaluate("[...document.querySelectorAll('.on')].map((one) => one.tagName)")
    assert lit.count("path") >= 6
    assert lit.count("TR") == 1
    page.press("ArrowLeft")
    assert page.evaluate(focused) == first
    page.press("End")
    last = page.evaluate(focused)
    page.press("ArrowRight")
    assert page.evaluate(focused) == last
    # One stop of the tabulator for each plot.
    assert page.evaluate("[...document.querySelectorAll('svg.plot')].every((plot) => "
                         "plot.querySelectorAll('[tabindex=\"0\"]').length <= 1)")  # fmt: skip
    page.press("Escape")
    assert page.evaluate(status) == hint


@needs_browser
def test_a_mouse_shows_the_nearest_trial(page: Browser):
    page.evaluate("document.querySelectorAll('svg.plot')[1].scrollIntoView({ block: 'center' })")
    x, y = page.evaluate(
        "(() => { const box = document.querySelectorAll('svg.plot')[1].querySelector('.t').getBoundingClientRect();"
        " return [box.x + box.width / 2 + 3, box.y + box.height / 2 - 3]; })()"
    )
    page.point(x, y)
    status = page.evaluate("document.getElementById('status').textContent")
    assert page.evaluate("document.querySelector('svg .t.on').getAttribute('aria-label')") in status
    page.point(2, 2)
    assert page.evaluate("document.querySelectorAll('.on').length") == 0


@needs_browser
def test_columns_are_sorted_by_the_keyboard(page: Browser):
    column = "[...document.querySelectorAll('.ranking')[1].tBodies[0].rows].map((row) => row.cells[4].dataset.v)"
    page.evaluate("document.querySelectorAll('.ranking')[1].querySelectorAll('th button')[4].focus()")
    for order in ("ascending", "descending"):
        page.press("Enter")
        values = [float(value) for value in page.evaluate(column)]
        assert values == sorted(values, reverse=order == "descending")
        heads = page.evaluate(
            "[...document.querySelectorAll('.ranking')[1].querySelectorAll('th')].map((th) => th.ariaSort)"
        )
        assert heads.count(order) == 1


@needs_browser
def test_dark_mode_follows_the_system_until_one_chooses(page: Browser, made: Path):
    background = "getComputedStyle(document.body).backgroundColor"
    button = "document.getElementById('mode')"
    light = page.evaluate(background)
    page.prefer("dark")
    dark = page.evaluate(background)
    assert dark != light
    for _ in range(50):  # the page hears of it a moment after its colours have changed
        if page.evaluate(f"{button}.textContent") == "Light mode":
            break
        time.sleep(0.1)
    assert page.evaluate(f"{button}.textContent") == "Light mode"
    page.evaluate(f"{button}.click()")
    assert page.evaluate(background) == light
    for _ in range(100):  # remembered; the browser writes it down in its own time
        page.open(made)
        if page.evaluate(background) == light:
            break
        time.sleep(0.2)
    assert page.evaluate(background) == light
    assert page.evaluate(f"{button}.textContent") == "Dark mode"
    page.evaluate(f"{button}.click()")
    page.prefer("light")
    assert page.evaluate(background) == dark


_CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_modes(page: Browser, scheme: str):
    """WCAG AA: 4.5 for text, 3 for what is drawn."""
    page.prefer(scheme)
    found: dict[str, Any] = page.evaluate(_CONTRAST)
    assert found["text"][0] >= 4.5, found["text"]
    assert found["graphics"][0] >= 3.0, found["graphics"]


@needs_browser
def test_without_scripts_it_is_a_page_all_the_same(page: Browser, made: Path):
    page.scripts(allowed=False)
    page.open(made)
    page.scripts(allowed=True)
    shown = page.evaluate(
        "[...document.querySelectorAll('#mode, #status')].map((one) => getComputedStyle(one).display)"
    )
    assert shown == ["none", "none"]
    assert page.evaluate("document.querySelectorAll('.ranking')[0].tBodies[0].rows.length") > 5
    assert page.evaluate("document.querySelectorAll('svg .t').length") > 100


def test_scales_hold_what_they_are_made_of():
    few = fitting([16, 32, 16, 64], 0.0, 300.0)
    assert [label for _, label in few.ticks] == ["16", "32", "64"]
    assert few.at(32) == 150.0
    wide = fitting([1e-5, 3e-5, 2e-4, 5e-4, 1e-3], 0.0, 300.0)
    assert wide.kind == "log"
    assert [label for _, label in wide.ticks] == ["1e-5", "2e-5", "5e-5", "1e-4", "2e-4", "5e-4", "1e-3"]
    assert fitting([0.0, 0.05, 0.1, 0.15, 0.2], 0.0, 300.0).kind == "linear"
    assert fitting([None, 1.0], 0.0, 300.0).at(None) == 225.0
    same = linear([60.0], 200.0, 0.0)
    assert 0 < same.at(60.0) < 200
    assert [label for _, label in linear([49.0, 71.0], 200.0, 0.0).ticks] == ["50", "55", "60", "65", "70"]
    assert logarithmic(10.0, 10.0, 0.0, 100.0).at(10.0) == pytest.approx(50.0)
    assert nice_step(0.013) == pytest.approx(0.02)
