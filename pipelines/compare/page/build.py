"""The page as one file: the template filled, the styles and scripts in it, and a policy that lets nothing else run."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.compare.comparison import Comparison
from pipelines.compare.config import CompareConfig
from pipelines.compare.names import benchmark_title
from pipelines.compare.page.marks import label_of
from pipelines.compare.page.view import section_view
from pipelines.compare.sections import Section, Trial
from pipelines.console import counted
from pipelines.quantities import duration
from pmlm_core import __version__, storage

_NAMED = 4  # benchmarks in the title


def write_page(comparisons: list[Comparison], config: CompareConfig, path: Path) -> None:
    """Write the page, whole or not at all."""
    storage.write_bytes(str(path), page(comparisons, config).encode())


def page(comparisons: list[Comparison], config: CompareConfig) -> str:
    """The page's HTML."""
    from jinja2 import Environment

    views: list[dict[str, Any]] = []
    details: list[str] = []
    for comparison in comparisons:
        view, _ = section_view(comparison, config.group_by, len(details))
        views.append(view)
        details += [detail(comparison.section, trial) for trial in comparison.section.trials]
    css, theme, script = (_file(name) for name in ("page.css", "theme.js", "page.js"))
    names = [benchmark_title(comparison.section.name) for comparison in comparisons]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_file("page.html.j2"))
    return template.render(
        title=", ".join(names) if len(names) <= _NAMED else f"{len(names)} benchmarks",
        runs=counted(len(details), "run"),
        group_by=config.group_by.replace("_", " "),
        resamples=f"{config.resamples:,}",
        made=datetime.now(UTC),
        version=__version__,
        sections=views,
        policy=_policy(css, theme, script),
        css=Markup(css),
        theme=Markup(theme),
        script=Markup(script),
        data=_data(details),
    )


def detail(section: Section, trial: Trial) -> str:
    """All that the status line says of a trial."""
    run = trial.run
    told = [label_of(section, trial)]
    if run.is_finalist:
        told.append("finalist")
    if run.seconds is not None:
        told.append(duration(run.seconds))
    told += [text for text in (run.tags.get("sweep"), run.name) if text]
    if trial.outcome != "finished":
        told.append(run.reason)
    return " · ".join(told)


def _policy(css: str, *scripts: str) -> str:
    """Nothing from elsewhere, and of scripts and styles only those of this page, by what they are."""
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; style-src {_hash(css)}; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(details: list[str]) -> Markup:
    """JSON for a script element: no text in it may end the element."""
    text = json.dumps(details, ensure_ascii=False).replace("&", "\\u0026")
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))


def _file(name: str) -> str:
    return (files("pipelines.compare.page") / name).read_text(encoding="utf-8").strip()
