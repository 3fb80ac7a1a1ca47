"""Variables are set for a block and are then as before."""

import os

from pipelines.variables import set_for_a_while


def test_variables_are_set_for_a_while(monkeypatch):
    monkeypatch.setenv("PMLM_SET", "before")
    monkeypatch.delenv("PMLM_UNSET", raising=False)
    with set_for_a_while({"PMLM_SET": "now", "PMLM_UNSET": "now"}):
        assert (os.environ["PMLM_SET"], os.environ["PMLM_UNSET"]) == ("now", "now")
    assert os.environ["PMLM_SET"] == "before"
    assert "PMLM_UNSET" not in os.environ
