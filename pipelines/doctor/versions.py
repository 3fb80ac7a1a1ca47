"""Whether all nodes, and this command's process, run the same software."""

from collections.abc import Mapping

from pipelines.doctor.finding import Check, Finding, error, named, usual
from pipelines.doctor.machine import Machine

_SAME_ENVIRONMENT = (
    "Install the same versions on all nodes (`pip install -c constraints.txt -e .`) and start Ray again."
)


def check(machines: Mapping[str, Machine]) -> Check:
    """Compare the reports; the command's own process is one of them."""
    findings: list[Finding] = []
    names = list(dict.fromkeys(name for each in machines.values() for name in each.versions))
    common = {name: usual(each.versions.get(name, "missing") for each in machines.values()) for name in names}
    for name in names:
        values = {label: each.versions.get(name, "missing") for label, each in machines.items()}
        for value in dict.fromkeys(values.values()):
            where = [label for label in values if values[label] == value]
            if value == "missing":
                findings.append(error(f"{name} is not installed", _SAME_ENVIRONMENT, named(where)))
            elif value != common[name]:
                what = f"{name} {value}, where the others have {common[name]}"
                findings.append(error(what, _SAME_ENVIRONMENT, named(where)))
    code = usual(each.code for each in machines.values())
    for label, each in machines.items():
        if each.code != code:
            findings.append(
                error(
                    f"the code of pmlm in {each.code_at} is not that of the others ({each.code}, not {code})",
                    "Bring the same commit to every node, or submit with --working-dir so that all run yours.",
                    label,
                )
            )
    shown = ", ".join(f"{name} {value}" for name, value in common.items())
    return Check("versions", f"{shown}; code {code}", tuple(findings))
