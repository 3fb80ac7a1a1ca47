"""The way to a cluster's jobs: its address, the token, and what goes wrong there in a user's words."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.cluster import verbose
from pipelines.tracking.redact import redact
from pmlm_core.errors import PmlmError

_DEFAULT = "http://127.0.0.1:8265"
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_PATIENCE = 10.0


def settled_address(given: str | None) -> str:
    """Address of the dashboard: the option, else the environment, else this machine (or a tunnel's end on it)."""
    address = given or os.environ.get(_ADDRESS) or os.environ.get("RAY_ADDRESS", "")
    return address.rstrip("/") if address.startswith(("http://", "https://")) else _DEFAULT


def connect(given: str | None) -> Any:
    """Ray's client for the cluster's jobs.

    Raises:
        PmlmError: nothing answers there, or it does not take the token.
    """
    address = settled_address(given)
    _reach(address)
    # Ray reads both: whether to send the token when it is imported, and the address in place of any argument.
    if token_is_here():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ[_ADDRESS] = address
    with plainly(address):
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):  # uploads and closed connections, of which more is said here
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(
                logging.INFO if verbose() else logging.WARNING
            )
        return JobSubmissionClient(address)


def token_is_here() -> bool:
    """Whether there is a token where Ray looks for one."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser().is_file()


@contextlib.contextmanager
def plainly(address: str, job: str = "") -> Iterator[None]:
    """Turn what Ray's client raises into sentences; `job` is the id that was asked about.

    Raises:
        PmlmError: the cluster is away, refuses the token, knows no such job, or refuses what was asked.
    """
    from ray.exceptions import AuthenticationError
    from requests import RequestException

    try:
        yield
    except AuthenticationError:
        have = "it does not take the token that is here" if token_is_here() else "it asks for a token, and none is here"
        raise PmlmError(
            f"the Ray at {redact(address)}: {have}; have the cluster's own in ~/.ray/auth_token (or RAY_AUTH_TOKEN, or "
            "the path of its file in RAY_AUTH_TOKEN_PATH) and RAY_AUTH_MODE unset or 'token'"
        ) from None
    except (RequestException, OSError) as error:
        raise PmlmError(_away(address, " ".join(redact(str(error)).split())[:300])) from None
    except RuntimeError as error:
        text = " ".join(redact(str(error)).split())
        if job and "status code 404" in text:
            raise PmlmError(
                f"the Ray at {redact(address)} knows no job {job} (a cluster that was started anew forgets its jobs); "
                "pmlm submit --list tells those it knows"
            ) from None
        raise PmlmError(f"the Ray at {redact(address)} refuses: {text[:600]}") from None


def _reach(address: str) -> None:
    """Look whether anything listens there, in a time that is known: Ray's client has no limit of its own."""
    parts = urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), _PATIENCE).close()
    except (OSError, ValueError) as error:
        raise PmlmError(_away(address, str(error))) from None


def _away(address: str, why: str) -> str:
    return (
        f"no Ray answers at {redact(address)} ({why}); open the tunnel (`ray dashboard cluster.yaml`), start the "
        "cluster (`ray up cluster.yaml`), or give --address"
    )
