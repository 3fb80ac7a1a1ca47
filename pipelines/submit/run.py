"""`pmlm submit`: check a command, send it with the code of this folder, follow it; or look after earlier jobs."""

import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.console import say, warn
from pipelines.inner_command import parse, words_of
from pipelines.leaving import Terminated
from pipelines.quantities import size_text
from pipelines.submit import tell
from pipelines.submit.client import connect, plainly, settled_address
from pipelines.submit.config import SubmitConfig
from pipelines.submit.environment import environment, refuse_secrets
from pipelines.submit.follow import follow
from pipelines.submit.package import Package, collect
from pipelines.submit.paths import NEVER, PURPOSE, files_named
from pipelines.tracking.redact import redact

INTERRUPTED, TERMINATED = 130, 143
_NOT_READY, _NOT_READY_S, _AGAIN_S = "No available agent", 60.0, 2.0


@dataclass(frozen=True)
class Job:
    """All that a cluster is told of a command."""

    stage: str
    words: list[str]
    package: Package
    named: list[str]
    variables: dict[str, str]
    metadata: dict[str, str]

    @property
    def entrypoint(self) -> str:
        return tell.command_line(self.words)


def run(config: SubmitConfig) -> int:
    """Do what the options ask for; the exit code is that of the job where one was followed.

    Raises:
        ConfigError: the command is wrong, would write to a place that is removed, is too large or holds a secret;
            nothing has been sent.
        PmlmError: the cluster is away or refuses.
    """
    job = prepare(config) if config.command else None
    client = connect(config.address)
    address = client.get_address()
    if job is not None:
        return _submit(config, job, client)
    if config.list:
        with plainly(address):
            tell.show_list(client.list_jobs(), config.address)
        return 0
    if config.logs is not None:
        return _logs(config, client, config.logs)
    named = config.status or config.stop
    assert named is not None, "the configuration was validated"
    with plainly(address, named):
        stopped = client.stop_job(named) if config.stop is not None else None
        info = client.get_job_info(named)
    if config.status is not None:
        tell.show_status(info, named, config.tracking_uri, config.address)
    elif stopped and str(info.status) == "PENDING":
        say(
            f"job {named} has not begun, it waits for a node: Ray ends it as soon as it begins, or as failed when no "
            "node has taken it in RAY_JOB_START_TIMEOUT_SECONDS (of the head's environment; 15 minutes by default)"
        )
    elif stopped:
        say(f"job {named} is being stopped; what it has finished is kept, the same command goes on from there")
        tell.say_next(config.address, f"--status {named}")
    else:
        say(f"job {named} has ended before: {info.status}")
    return 0


def dry_run(config: SubmitConfig) -> None:
    """Say what would be sent, and where; nothing is.

    Raises:
        ConfigError: as `run`.
    """
    if not config.command:
        say("nothing would be sent; leave out --dry_run")
        return
    job = prepare(config)
    say(f"would run at {redact(settled_address(config.address))}: {job.entrypoint}")
    say(f"would send {job.package}; the largest:")
    for name, size in job.package.largest(5):
        say(f"  {name}  {size_text(size)}")
    for name, value in job.variables.items():
        say(f"with {name}={value}")


def prepare(config: SubmitConfig) -> Job:
    """Settle what is sent, having checked all that can be checked here.

    Raises:
        ConfigError: as `run`.
    """
    root = Path.cwd().resolve()
    words = words_of(config.command)
    stage, request = parse(words, purpose=PURPOSE, never=NEVER)
    named = files_named(stage, request, root)
    recipes = {root / name for name in named if name.endswith((".yaml", ".yml"))}
    refuse_secrets(words, sorted(recipes | ({Path(request.recipe)} if request.recipe else set())))
    package = collect(root, config.exclude, named)
    package.check()
    variables, metadata = environment(root, request.config)
    return Job(stage, words, package, named, variables, metadata)


def _submit(config: SubmitConfig, job: Job, client: Any) -> int:
    for left in range(config.retries, -1, -1):
        name = _send(config, job, client)
        if config.no_wait:
            tell.say_next(config.address, f"--logs {name}")
            return 0
        try:
            info = follow(client, name)
        except KeyboardInterrupt as signal:
            return _left_running(config, name, signal)
        if not left or not was_lost(info):
            return tell.show_end(info, name, config.address)
        warn(f"job {name} lost its process or its node; it is submitted again ({left} more times at most)")
    raise AssertionError("the last attempt returns")


def _send(config: SubmitConfig, job: Job, client: Any) -> str:
    name = f"{job.stage}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    say(f"sending {job.package}")
    if job.named:
        more = f" and {len(job.named) - 5} more" if len(job.named) > 5 else ""
        say(f"among them, for the command names them by relative paths: {', '.join(job.named[:5])}{more}")
    with tempfile.TemporaryDirectory() as folder, plainly(client.get_address()):
        archive = Path(folder) / "code.zip"
        job.package.write(archive)
        _hand_in(
            client,
            entrypoint=job.entrypoint,
            submission_id=name,
            runtime_env={"working_dir": str(archive), "env_vars": job.variables},
            metadata=job.metadata,
            entrypoint_resources=config.entrypoint_resources,
        )
    say(f"job {name}: {job.entrypoint}")
    return name


def _hand_in(client: Any, **asked: Any) -> None:
    """Submit a job, again for a while as long as Ray answers that its head is not ready for any."""
    deadline, told = time.monotonic() + _NOT_READY_S, False
    while True:
        try:
            client.submit_job(**asked)
            return
        except RuntimeError as error:
            if _NOT_READY not in str(error) or time.monotonic() >= deadline:
                raise
        if not told:
            say(f"the cluster's head has only just started, or is busy: trying again for up to {_NOT_READY_S:g} s")
            told = True
        time.sleep(_AGAIN_S)


def _logs(config: SubmitConfig, client: Any, name: str) -> int:
    if config.no_wait:
        with plainly(client.get_address(), name):
            print(client.get_job_logs(name), end="")
        return 0
    try:
        return tell.show_end(follow(client, name), name, config.address)
    except KeyboardInterrupt as signal:
        return _left_running(config, name, signal)


def _left_running(config: SubmitConfig, name: str, signal: KeyboardInterrupt) -> int:
    print()
    say(f"job {name} goes on without this terminal")
    say(f"stop it: pmlm submit --stop {name}")
    tell.say_next(config.address, f"--logs {name}")
    return TERMINATED if isinstance(signal, Terminated) else INTERRUPTED


def was_lost(info: Any) -> bool:
    """Whether a failed job ended for a reason outside of it: its process was killed, or its node or supervisor died."""
    if str(info.status) != "FAILED":
        return False
    code = info.driver_exit_code
    if code is not None:
        return code < 0 or code == 128 + 9  # a shell between tells a signal so; the kernel's for want of memory
    return info.error_type in ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
