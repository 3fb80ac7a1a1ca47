"""Whether the nodes reach each other under the names and addresses that they have been given, and agree on the time."""

from collections.abc import Mapping

from pipelines.doctor.finding import Check, Finding, error, named, warning
from pipelines.doctor.machine import Machine

MOST_SECONDS_APART = 2.0
_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def check_names(
    machines: Mapping[str, Machine],
    addresses: Mapping[str, str],
    resolved: Mapping[str, Mapping[str, list[str]]],
    *,
    gloo: bool,
) -> Check:
    """Host names and interfaces.

    Args:
        addresses: of the nodes, as Ray knows them.
        resolved: addresses of all host names, by the node that was asked.
        gloo: workers will talk over Gloo, which listens at the address of the host's own name.
    """
    findings: list[Finding] = []
    several = len({each.identity for each in machines.values()}) > 1
    worse = error if gloo else warning
    for label, each in machines.items():
        address = addresses[label]
        if several and address.startswith("127."):
            findings.append(
                error(
                    f"Ray knows this node as {address}, which means another machine everywhere else",
                    "Start Ray there with --node-ip-address and the address that the others reach it by.",
                    label,
                )
            )
        card = next((name for name, own in each.interfaces.items() if own == address), "the one with that address")
        own = [found for found in each.own_addresses if found in each.interfaces.values() and not _loops(found)]
        if several and not own and "GLOO_SOCKET_IFNAME" not in each.environment:
            leads = f"leads to {named(each.own_addresses)}" if each.own_addresses else "does not resolve there"
            findings.append(
                worse(
                    f"its own name {each.hostname} {leads}, so Gloo would listen where no other node reaches it",
                    f"Start Ray there with GLOO_SOCKET_IFNAME={card}, or enter {address} for the name in /etc/hosts.",
                    label,
                )
            )
        for variable in _VARIABLES:
            wanted = each.environment.get(variable)
            if wanted and not wanted.startswith("^") and not _matches(wanted, each.interfaces):
                what = f"{variable} names {wanted}, and there are only {named(each.interfaces)}"
                findings.append(error(what, f"Set {variable} to an interface of the node, such as {card}.", label))
    findings += _unresolved(machines, addresses, resolved) if several else []
    return Check("names", "every node has its own address" if several else "one machine", tuple(findings))


def _unresolved(
    machines: Mapping[str, Machine], addresses: Mapping[str, str], resolved: Mapping[str, Mapping[str, list[str]]]
) -> list[Finding]:
    """Names of others; Ray and the workers go by addresses, people and servers by names."""
    findings = []
    for label, found in resolved.items():
        lost = [
            machines[other].hostname
            for other in machines
            if other != label and addresses[other] not in found.get(machines[other].hostname, [])
        ]
        if lost:
            findings.append(
                warning(
                    f"the name of {named(lost)} does not lead to the address that Ray has for it",
                    "Enter all nodes in the DNS or in /etc/hosts of each; Ray itself goes by addresses.",
                    label,
                )
            )
    return findings


def check_connections(failures: Mapping[str, Mapping[str, str | None]]) -> Check:
    """TCP between the nodes on ports that were free, by the node that tried, then by the node it tried."""
    findings = []
    for label, tried in failures.items():
        broken = {other: failure for other, failure in tried.items() if failure is not None}
        if broken:
            findings.append(
                error(
                    f"no connection to {named(broken)}: {next(iter(broken.values()))}",
                    "Open all TCP ports between the nodes (security group, firewall): workers listen on ports they "
                    "find free.",
                    label,
                )
            )
    pairs = sum(len(tried) for tried in failures.values())
    return Check("connections", f"{pairs} tried between nodes" if pairs else "one node", tuple(findings))


def check_clocks(offsets: Mapping[str, tuple[float, float]]) -> Check:
    """Clocks: seconds ahead of the command's own machine, and the seconds that asking took (half of it is doubt)."""
    findings = []
    for label, (ahead, took) in offsets.items():
        if abs(ahead) > MOST_SECONDS_APART + took / 2:
            way = "ahead of" if ahead > 0 else "behind"
            findings.append(
                warning(
                    f"its clock is {abs(ahead):.1f} s {way} this one",
                    "Switch on NTP there (`timedatectl set-ntp true`): ages of files and figures' times rest on it.",
                    label,
                )
            )
    most = max((abs(ahead) for ahead, _ in offsets.values()), default=0.0)
    return Check("clocks", f"at most {most:.2f} s apart", tuple(findings))


def _loops(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _matches(wanted: str, interfaces: Mapping[str, str]) -> bool:
    """Whether the list in such a variable names an interface; NCCL takes beginnings, and whole names after "="."""
    names = [name.strip() for name in wanted.removeprefix("=").split(",")]
    return any(present.startswith(name) for name in names for present in interfaces)
