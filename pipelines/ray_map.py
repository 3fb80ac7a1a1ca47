"""A function over a list of small items by Ray, in one place for every stage that works by pieces.

What an item stands for is read and written by the task itself, for moving it through the object store would cost more
than most work on it. Rows out are small beside it: what was done, or (tokenizer training) the sample drawn of a share.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from pipelines.cluster import verbose
from pmlm_core.errors import DataError

Row = dict[str, Any]
_RETRIES = 3  # of an item whose worker died


def over_ray(
    task: Callable[[Row], Row] | type,
    items: list[Row],
    *,
    num_workers: int | None,
    what: str,
    kept: str = "try again",
    made_with: Mapping[str, Any] | None = None,
    num_cpus: int = 1,
    num_gpus: int = 0,
) -> Iterator[Row]:
    """Do `task` on every item over the connected Ray; yields the results as they come, in any order.

    Args:
        task: a function; or a class, of which each worker makes one to call, where there is much to load first.
        num_workers: tasks at a time; None for as many as there are CPUs, which a class cannot have.
        made_with: arguments of the class.
        num_cpus, num_gpus: of each task at a time.
        what: the work's name, for the error: "finish drawing the sample".
        kept: what to do then.

    Raises:
        DataError: worker processes died again and again.
    """
    import ray

    try:
        if isinstance(task, type):
            yield from _over_ray_data(
                task, items, num_workers=num_workers, num_cpus=num_cpus, num_gpus=num_gpus, made_with=made_with
            )
        else:
            yield from _as_tasks(task, items, num_workers, num_cpus=num_cpus, num_gpus=num_gpus)
    except ray.exceptions.RayError as error:
        raise DataError(
            f"Ray could not {what}: {_last_line(error)}; {kept} (with fewer --num_workers if memory was short)"
        ) from error


def _as_tasks(
    task: Callable[[Row], Row], items: list[Row], num_workers: int | None, *, num_cpus: int, num_gpus: int
) -> Iterator[Row]:
    """By plain tasks of Ray, done again where a worker died.

    Ray Data would start two actors of its own first, and every worker would import it: on two cores that is seconds.
    """
    import ray

    remote = ray.remote(_call).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=_RETRIES)
    shared, waiting = ray.put(task), iter(items)
    running = [remote.remote(shared, item) for item in islice(waiting, num_workers)]
    try:
        while running:
            [done], running = ray.wait(running)
            running += [remote.remote(shared, item) for item in islice(waiting, 1)]
            yield ray.get(done)
    finally:  # nothing is left, unless an error ends it
        for unfinished in running:
            ray.cancel(unfinished)


def _call(task: Callable[[Row], Row], item: Row) -> Row:
    return task(item)


def _over_ray_data(
    task: type,
    items: list[Row],
    *,
    num_workers: int | None,
    num_cpus: int,
    num_gpus: int,
    made_with: Mapping[str, Any] | None,
) -> Iterator[Row]:
    """By Ray Data's pool of actors, each of which makes a `task` to call."""
    import ray.data  # sets up its log, so it comes before the line that quiets it

    if not verbose():
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    mapped = ray.data.from_items(items, override_num_blocks=len(items)).map(
        task,
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
        concurrency=min(num_workers, len(items)) if num_workers else None,
        fn_constructor_kwargs=dict(made_with) if made_with else None,
    )
    yield from mapped.iter_rows()


def _last_line(error: BaseException) -> str:
    """Where Ray puts the cause; some of its errors say nothing but their name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
