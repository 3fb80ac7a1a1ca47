"""Whether the cluster lets in only who has its token."""

from collections.abc import Mapping

from pipelines.doctor.finding import Check, named, warning
from pipelines.doctor.machine import Machine

_TURN_ON = (
    "Make one with `ray get-auth-token --generate`, copy ~/.ray/auth_token to every node and to where you work, and "
    "start Ray everywhere with RAY_AUTH_MODE=token (cluster.yaml does all that)."
)


def check(machines: Mapping[str, Machine], *, alone: bool) -> Check:
    """Look for token authentication.

    Args:
        machines: those of the cluster, without the command's own process.
        alone: this command has started its own Ray, which ends with it.
    """
    if alone:
        return Check("token", "not needed: this Ray is the command's own")
    without = [label for label, each in machines.items() if each.token is False]
    unknown = [label for label, each in machines.items() if each.token is None]
    if without:
        what = "no token is asked for: whoever reaches the cluster's ports may run code on it"
        return Check("token", "not in force", (warning(what, _TURN_ON, named(without)),))
    if unknown:
        what = "this version of Ray does not tell whether a token is asked for"
        return Check("token", "unknown", (warning(what, _TURN_ON, named(unknown)),))
    return Check("token", "asked for by every node")
