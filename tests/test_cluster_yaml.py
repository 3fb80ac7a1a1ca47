"""cluster.yaml does what the README says of it; tests/test_deploy.py has its form and its doors."""

import json
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


def test_runs_lie_where_every_node_sees_them_or_are_uploaded_from_the_only_one():
    cluster = _cluster()
    mounted = [c.split()[-1] for c in cluster["initialization_commands"] if "mount -t nfs4" in c]
    commands = _training_commands()
    assert len(commands) == 2
    for command in commands:
        output = re.search(r"--output_dir (\S+)", command)[1]
        if any(output.startswith(f"{folder}/") for folder in mounted):
            continue
        assert "--upload_dir s3://" in command
        wanted = json.loads(re.search(r"--entrypoint_resources '(.*?)'", command)[1])
        offering = [t for t in cluster["available_node_types"].values() if wanted.items() <= t["resources"].items()]
        assert offering, "the job would not start"
        assert all(node["resources"]["GPU"] for node in offering), "the job would start elsewhere than its workers"


def test_every_node_may_use_the_bucket():
    roles = [node["node_config"].get("IamInstanceProfile") for node in _cluster()["available_node_types"].values()]
    assert roles[0]
    assert all(role == roles[0] for role in roles)


def test_every_submission_that_the_readme_tells_is_accepted(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("pmlm submit ")]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line)[2:]
        request = options.parse("submit", SubmitConfig, "", words, ())
        assert prepare(request.config).entrypoint.startswith("pmlm ")
