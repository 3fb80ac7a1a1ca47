"""What the user reads, and the file for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.console import console, counted
from pipelines.doctor.finding import Check, Finding, Severity
from pipelines.tracking.redact import redact, redacted
from pmlm_core import __version__, storage

_STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.ERROR: "red"}


def show_check(check: Check) -> None:
    """One line: mark, name, summary."""
    console().print(f"{check.severity:<8}", style=_STYLES[check.severity], end="", markup=False)
    console().print(redact(f"{check.name:<12} {check.summary}"), markup=False)


def show_findings(checks: Sequence[Check]) -> None:
    """All findings with their remedies, errors first."""
    for severity in (Severity.ERROR, Severity.WARNING):
        for check in checks:
            for finding in check.findings:
                if finding.severity is severity:
                    _show(check, finding)


def _show(check: Check, finding: Finding) -> None:
    console().print()
    where = f" [{finding.where}]" if finding.where else ""
    console().print(
        redact(f"{finding.severity}: {check.name}{where}: {finding.what}"),
        style=_STYLES[finding.severity],
        markup=False,
    )
    console().print(f"  {redact(finding.remedy)}", markup=False)


def numbers(checks: Sequence[Check]) -> tuple[int, int]:
    """Errors and warnings."""
    found = [finding.severity for check in checks for finding in check.findings]
    return found.count(Severity.ERROR), found.count(Severity.WARNING)


def verdict(checks: Sequence[Check]) -> str:
    """The whole in a sentence."""
    errors, warnings = numbers(checks)
    if not errors and not warnings:
        return "ready: nothing was found"
    parts = [counted(number, noun) for number, noun in ((errors, "error"), (warnings, "warning")) if number]
    return f"{'not ready' if errors else 'ready, with care'}: {' and '.join(parts)}"


def write(path: str, checks: Sequence[Check], nodes: Mapping[str, Any], *, ready: bool) -> None:
    """Write everything as JSON; addresses in it are redacted."""
    errors, warnings = numbers(checks)
    content = {
        "pmlm": __version__,
        "ready": ready,
        "errors": errors,
        "warnings": warnings,
        "checks": [{**asdict(check), "severity": check.severity} for check in checks],
        "nodes": {label: asdict(node) for label, node in nodes.items()},
    }
    storage.write_bytes(path, (json.dumps(redacted(content), indent=2, ensure_ascii=False) + "\n").encode())
