"""Tell Ray that this machine is about to be taken: `python -m pipelines.spot_notice --cloud aws`, on every spot node.

Clouds announce it to the machine alone, some 30 s (Google) to two minutes (AWS) before. Ray asks nobody; once the node
is drained in Ray, pre-training writes a checkpoint at its next step and goes on elsewhere (`leaving.py`).

    AWS     https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    Google  https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
    --now   for those who know by themselves: a hook that runs before a pod of Kubernetes ends
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

LOOK_S = 5.0
_GOOGLE_S = 30.0
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the address is the machine's own

Look = Callable[[], float | None]
"""Seconds until the machine goes; None: nothing is announced. OSError: nobody answers."""


def aws(address: str = "http://169.254.169.254") -> Look:
    """Ask EC2's metadata (the version with tokens, which serves where the older one is switched off)."""

    def look() -> float | None:
        wanted = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = _ask(urllib.request.Request(f"{address}/latest/api/token", method="PUT", headers=wanted))
        headers = {"X-aws-ec2-metadata-token": token}
        try:
            answer = _ask(urllib.request.Request(f"{address}/latest/meta-data/spot/instance-action", headers=headers))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        # "hibernate" keeps memory but not this machine's connections: the same to Ray
        goes = datetime.datetime.fromisoformat(json.loads(answer)["time"])
        return max(0.0, (goes - datetime.datetime.now(datetime.UTC)).total_seconds())

    return look


def google(address: str = "http://metadata.google.internal") -> Look:
    """Ask Compute Engine's metadata."""

    def look() -> float | None:
        url, headers = f"{address}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
        return _GOOGLE_S if _ask(urllib.request.Request(url, headers=headers)).strip() == "TRUE" else None

    return look


def _ask(request: urllib.request.Request) -> str:
    with _NO_PROXY.open(request, timeout=5) as answer:
        return str(answer.read().decode())


def wait_for_notice(look: Look, pause: float = LOOK_S) -> float:
    """Look until the machine's end is announced; the seconds that it has. Nobody answering is said once."""
    said = False
    while True:
        try:
            seconds = look()
        except (OSError, ValueError, KeyError) as error:
            if not said:
                say(f"the cloud's metadata cannot be read ({error}); asking again every {pause:.0f} s")
            seconds, said = None, True
        else:
            if seconds is not None:
                return seconds
            said = False
        time.sleep(pause)


def drain_this_node(seconds: float) -> None:
    """Tell Ray that this node has `seconds` left. RuntimeError, with Ray's words, if it will not hear of it."""
    import logging

    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    try:
        context = ray.get_runtime_context()
        address, node = context.gcs_address, context.get_node_id()
    finally:
        ray.shutdown()
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "drain-node",
        "--address", address,
        "--node-id", node,
        "--reason", "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message", f"this machine is taken in {seconds:.0f} s",
        "--deadline-remaining-seconds", str(int(seconds)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"Ray did not drain this node: {done.stderr.strip()[-500:]}")


def say(text: str) -> None:
    print(f"{time.strftime('%F %T')} {text}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.spot_notice", description=(__doc__ or "").partition("\n")[0]
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cloud", choices=["aws", "google"], help="whose metadata to ask for the notice")
    which.add_argument("--now", type=float, metavar="SECONDS", help="do not wait for one: this is what is left")
    parser.add_argument("--metadata_url", help="where the metadata is, if elsewhere")
    options = parser.parse_args(arguments)
    seconds = options.now
    if seconds is None:
        ask = {"aws": aws, "google": google}[options.cloud]
        say(f"waiting for {options.cloud}'s notice that this machine is taken")
        seconds = wait_for_notice(ask(options.metadata_url) if options.metadata_url else ask())
    end = time.monotonic() + seconds
    while True:
        try:
            drain_this_node(max(0.0, end - time.monotonic()))
            break
        except Exception as error:  # Ray's head may be away for a moment
            if time.monotonic() > end:
                raise
            say(f"{error}; trying again")
            time.sleep(1)
    say(f"this machine is taken in {seconds:.0f} s: Ray has been told")


if __name__ == "__main__":
    main()
