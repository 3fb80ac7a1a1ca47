"""A function over items by Ray: every item once, again where a worker died, and what is said when Ray gives up."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.exceptions import RayError, WorkerCrashedError

from pipelines.ray_map import _last_line, over_ray
from pmlm_core.errors import DataError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see the tests


def double(item):
    return {"number": 2 * item["number"]}


def die_once(item, folder):
    mark = Path(folder) / f"{item['number']}-{os.getpid()}"
    if item["number"] == 3 and not list(Path(folder).glob("3-*")):
        mark.touch()
        os._exit(1)
    mark.touch()
    return item


def fail(item):
    raise ValueError("no such thing")


@pytest.mark.parametrize("num_workers", [None, 1, 2, 100])
def test_every_item_is_done_once(ray_session, num_workers):
    items = [{"number": number} for number in range(7)]
    rows = over_ray(double, items, num_workers=num_workers, what="double")
    assert sorted(row["number"] for row in rows) == [0, 2, 4, 6, 8, 10, 12]


def test_an_item_whose_worker_died_is_done_again(ray_session, tmp_path):
    items = [{"number": number} for number in range(5)]
    rows = list(over_ray(partial(die_once, folder=str(tmp_path)), items, num_workers=2, what="go on"))
    assert sorted(row["number"] for row in rows) == list(range(5))
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_an_error_ends_it_in_a_sentence(ray_session):
    items = [{"number": number} for number in range(5)]
    with pytest.raises(DataError, match=r"Ray could not count: .*no such thing; try again"):
        list(over_ray(fail, items, num_workers=2, what="count"))


def test_the_cause_is_the_last_line_and_an_error_without_words_has_a_name():
    assert _last_line(RayError("Trace:\n  somewhere\nout of memory\n")) == "out of memory"
    assert _last_line(RayError("")) == "RayError"
    assert _last_line(RayError(" \n")) == "RayError"
    assert "died unexpectedly" in _last_line(WorkerCrashedError())
