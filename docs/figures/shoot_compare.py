"""Takes the pictures of the comparison page: compare_desktop.png, compare_dark.png, compare_phone.png.

    python docs/figures/shoot_compare.py outputs/compare/index.html

Needs Chromium and Pillow.
"""

import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from browser import Browser, browser  # noqa: E402

COLOURS = 255  # of the picture: flat areas and text need no more


def shrink(target: Path) -> None:
    """Write a picture anew with as many colours as it needs."""
    Image.open(target).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target, f"{target.stat().st_size / 1000:.0f} kB")


def shoot(page: Browser, source: Path, name: str, scheme: str, size: tuple[int, int], scale: float, at: str) -> None:
    """One picture, with `at`, a script, run before it."""
    page.size(*size, mobile=size[0] < 500, scale=scale)
    page.prefer(scheme)
    page.open(source)
    page.evaluate(at)
    target = HERE / f"{name}.png"
    page.picture(target)
    shrink(target)


def main(source: Path) -> None:
    last = "[...document.querySelectorAll('section .figures')].at(-1)"
    trial = f"{last}.querySelectorAll('svg .t.b')[0]?.focus({{ preventScroll: true }})"
    with browser() as page:
        shoot(page, source, "compare_desktop", "light", (1280, 1640), 1.0, "0")
        shoot(
            page,
            source,
            "compare_dark",
            "dark",
            (1280, 1640),
            1.0,
            f"{last}.previousElementSibling.scrollIntoView();{trial}",
        )
        shoot(page, source, "compare_phone", "light", (390, 1500), 2.0, "0")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
