"""What is said when Ray gives up."""

from ray.exceptions import RayError, WorkerCrashedError

from pipelines.ray_map import _last_line


def test_the_cause_is_the_last_line_and_an_error_without_words_has_a_name():
    assert _last_line(RayError("Trace:\n  somewhere\nout of memory\n")) == "out of memory"
    assert _last_line(RayError("")) == "RayError"
    assert _last_line(RayError(" \n")) == "RayError"
    assert "died unexpectedly" in _last_line(WorkerCrashedError())
