"""SVG as text, escaped; a page of a hundred trials stays small because numbers have one digit after the point."""

from markupsafe import Markup, escape


def element(name: str, *children: str, **attributes: object) -> Markup:
    """One element. `class_` is class, an underscore within a name a hyphen; attributes that are None are left out.

    Children that are not `Markup` are text, and escaped.

    >>> str(element("text", "a < b", x=1.25, text_anchor="end", class_="tick", id=None))
    '<text x="1.2" text-anchor="end" class="tick">a &lt; b</text>'
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{told}>{inner}</{name}>") if children else Markup(f"<{name}{told}/>")


def joined(parts: list[Markup]) -> Markup:
    return Markup("").join(parts)


def number(value: object) -> str:
    """A float with one digit after the point, without a needless one; anything else as it is.

    >>> number(12.04), number(3.96), number(7), number("M0 0")
    ('12', '4', '7', 'M0 0')
    """
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def path(points: list[tuple[float, float]]) -> str:
    """The `d` of a line through points.

    >>> path([(0.0, 1.0), (2.5, 3.0)])
    'M0 1L2.5 3'
    """
    return "M" + "L".join(f"{number(float(x))} {number(float(y))}" for x, y in points)


def drawing(width: int, height: int, title: str, *children: str, class_: str = "plot", role: str = "group") -> Markup:
    """A whole picture with its name for those who cannot see it; it scales with its place.

    Args:
        title: what it shows, with the main thing to see.
        role: "group" of trials to go through, or one "img".
    """
    return element("svg", *children, class_=class_, viewBox=f"0 0 {width} {height}", role=role, aria_label=title)
