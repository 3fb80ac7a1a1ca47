"""cluster.yaml does what the README says of it; tests/test_deploy.py has its form and its doors."""

import re
import shlex
from pathlib import Path

import yaml

from pipelines import options
from pipelines.submit.config import SubmitConfig
from pipelines.submit.run import prepare

ROOT = Path(__file__).parent.parent


def _cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def _training_commands() -> list[str]:
    """The README's commands that pre-train on a cluster, each in one line."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if re.search(r"^pmlm submit .*-- +pretrain .*--data_dir s3://", line)]


def test_everything_lies_in_the_bucket():
    assert "initialization_commands" not in _cluster(), "a folder that is mounted would be one more line to edit"
    (command,) = _training_commands()
    assert all(place.startswith("s3://") for place in re.findall(r"--(?:data|output)_dir (\S+)", command))


def test_runs_have_a_disk_to_be_worked_on():
    for node in _cluster()["available_node_types"].values():
        (disk,) = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= 500


def test_every_node_may_use_the_bucket():
    roles = [node["node_config"].get("IamInstanceProfile") for node in _cluster()["available_node_types"].values()]
    assert roles[0]
    assert all(role == roles[0] for role in roles)


def test_every_submission_that_the_readme_tells_is_accepted(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("pmlm submit ")]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)[2:]
        request = options.parse("submit", SubmitConfig, "", words, ())
        assert prepare(request.config).entrypoint.startswith("pmlm ")
