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
    heard = _Heard()
    while True:
        try:
            with plainly(client.get_address(), job):
                client.get_job_info(job)  # the tail of a job that is not there would be a broken connection
                heard.now()
                asyncio.run(_print_until_end(client, job, heard))
                while not (info := client.get_job_info(job)).status.is_terminal():  # its output has ended
                    time.sleep(0.5)
                return info
        except PmlmError as error:
            if "knows no job" in str(error) or time.monotonic() - heard.at > _GIVE_UP:
                raise
            time.sleep(2.0)


class _Heard:
    """When the cluster last answered, and how much was printed: every connection gets the output from its beginning."""

    def __init__(self) -> None:
        self.characters = 0
        self.now()

    def now(self) -> None:
        self.at = time.monotonic()


async def _print_until_end(client: Any, job: str, heard: _Heard) -> None:
    """Print until the output ends, or the job has and its node, perhaps lost, says nothing more."""
    tail = asyncio.create_task(_print(client, job, heard))
    while not tail.done():
        await asyncio.wait({tail}, timeout=_ASK_EVERY)
        if tail.done():
            break
        info = await asyncio.to_thread(client.get_job_info, job)
        heard.now()
        if info.status.is_terminal():
            await asyncio.wait({tail}, timeout=_LATE_LINES)
            tail.cancel()
            return
    tail.result()


async def _print(client: Any, job: str, heard: _Heard) -> None:
    position = 0
    async for lines in client.tail_job_logs(job):
        fresh = lines[max(0, heard.characters - position) :]
        position += len(lines)
        heard.characters = max(heard.characters, position)
        sys.stdout.write(fresh)
        sys.stdout.flush()
