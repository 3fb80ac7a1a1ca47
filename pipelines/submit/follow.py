"""The output of a job as it comes, through connections that break, until the job has ended."""

import asyncio
import sys
import time
from typing import Any

from pipelines.submit.client import plainly
from pmlm_core.errors import PmlmError

_ASK_EVERY, _LATE_LINES, _GIVE_UP = 10.0, 5.0, 300.0


def follow(client: Any, job: str) -> Any:
    """Print what the job prints, from its beginning; return its details when it has ended.

    Raises:
        PmlmError: no such job, or the cluster did not answer for five minutes.
    """
    printed, last_answer = _Printed(), time.monotonic()
    while True:
        try:
            with plainly(client.get_address(), job):
                client.get_job_info(job)  # the tail of a job that is not there would be a broken connection
                last_answer = time.monotonic()
                asyncio.run(_print_until_end(client, job, printed))
                while not (info := client.get_job_info(job)).status.is_terminal():  # its output has ended
                    time.sleep(0.5)
                return info
        except PmlmError as error:
            if "knows no job" in str(error) or time.monotonic() - last_answer > _GIVE_UP:
                raise
            time.sleep(2.0)


class _Printed:
    """How much of the output has been printed: every connection gets it from its beginning."""

    def __init__(self) -> None:
        self.characters = 0


async def _print_until_end(client: Any, job: str, printed: _Printed) -> None:
    """Print until the output ends, or the job has and its node, perhaps lost, says nothing more."""
    tail = asyncio.create_task(_print(client, job, printed))
    while not tail.done():
        await asyncio.wait({tail}, timeout=_ASK_EVERY)
        if not tail.done() and (await asyncio.to_thread(client.get_job_info, job)).status.is_terminal():
            await asyncio.wait({tail}, timeout=_LATE_LINES)
            tail.cancel()
            return
    tail.result()


async def _print(client: Any, job: str, printed: _Printed) -> None:
    position = 0
    async for lines in client.tail_job_logs(job):
        fresh = lines[max(0, printed.characters - position) :]
        position += len(lines)
        printed.characters = max(printed.characters, position)
        sys.stdout.write(fresh)
        sys.stdout.flush()
