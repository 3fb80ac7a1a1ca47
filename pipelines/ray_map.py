"""A function over a list of small items by Ray Data, in one place for every stage that works by pieces.

What an item stands for is read and written by the task itself: rows in and out are a few bytes, for moving the data
through the object store would cost more than most work on it.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.cluster import verbose
from pmlm_core.errors import DataError

Row = dict[str, Any]


def over_ray(
    task: Callable[[Row], Row], items: list[Row], *, num_workers: int | None, what: str, kept: str = "try again"
) -> Iterator[Row]:
    """Do `task` on every item over the connected Ray, one CPU each; yields the results as they come, in any order.

    Args:
        num_workers: tasks at a time; None for as many as there are CPUs.
        what: the work's name, for the error: "finish drawing the sample".
        kept: what to do then.

    Raises:
        DataError: worker processes died again and again.
    """
    import ray
    import ray.data  # sets up its log, so it comes before the line that quiets it

    if not verbose():
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    mapped = ray.data.from_items(items, override_num_blocks=len(items)).map(
        task, num_cpus=1, concurrency=min(num_workers, len(items)) if num_workers else None
    )
    try:
        yield from mapped.iter_rows()
    except ray.exceptions.RayError as error:
        raise DataError(
            f"Ray could not {what}: {str(error).strip().splitlines()[-1]}; {kept} (with fewer --num_workers if memory "
            "was short)"
        ) from error
