"""What `pmlm submit` settles before a cluster hears of it: options, what is sent, paths, secrets, the way there."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

from pipelines.cli import main
from pipelines.submit import run as submitting
from pipelines.submit.config import SubmitConfig
from pipelines.submit.package import LIMIT, collect
from pipelines.submit.run import prepare, was_lost
from pipelines.submit.tell import say_next
from pipelines.tracking.ray_job import job_tags
from pipelines.tracking.record import Record
from pipelines.tracking.sink import MlflowSink
from pmlm_core.errors import ConfigError

TINY = ["pretrain", "--preset", "tiny"]
BLOCKS, OUTPUT = ["--data_dir", "s3://bucket/blocks"], ["--output_dir", "/shared/pretrain"]
PRETRAIN = [*TINY, *BLOCKS, *OUTPUT]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, being the current one: a recipe, a benchmark of his own, data, secrets."""
    files = {
        "recipes/mine.yaml": "pretrain: {preset: tiny, data_dir: s3://bucket/blocks, output_dir: /shared/pretrain}\n",
        "benchmarks/mine.py": "from tune_spaces.template import BENCHMARK\n",
        **{"text/a.jsonl.zst": "x", "big.arrow": "x", "outputs/run/model.safetensors": "x", ".git/HEAD": "x"},
        **{"data/a.txt": "x", ".venv/bin/python": "x", ".env": "SECRET=1", "auth_token": "x", "key.pem": "x"},
        ".gitignore": "scratch*\n",
        "code/.rayignore": "notes/\n/top.txt\n",
        **{"scratch.txt": "x", "code/notes/n.txt": "x", "code/top.txt": "x", "code/sub/top.txt": "x"},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that takes connections, and tells if there was none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def _sent(*named: str, exclude: tuple[str, ...] = ()) -> set[str]:
    return {name for name, _ in collect(Path.cwd(), exclude, named).files}


def test_code_and_recipes_are_sent_and_data_and_secrets_are_not(project):
    expected = {"recipes/mine.yaml", "benchmarks/mine.py", ".gitignore", "code/.rayignore", "code/sub/top.txt"}
    assert _sent() == expected
    assert _sent(exclude=("*.py", "code/")) == {"recipes/mine.yaml", ".gitignore"}


def test_a_linked_worktree_s_git_is_not_sent(project):
    (project / "worktree").mkdir()
    (project / "worktree" / ".git").write_text("gitdir: /elsewhere")
    assert not [name for name in _sent() if ".git" in name and not name.endswith("ignore")]


def test_an_ignore_file_with_a_wrong_pattern_is_named(project):
    (project / "code" / ".gitignore").write_text("!\n")
    with pytest.raises(ConfigError, match=r"code/\.gitignore: Invalid git pattern: '!'"):
        _sent()


def test_what_the_command_names_is_sent_whatever_the_patterns_say(project):
    assert _sent("text/a.jsonl.zst", "data") - _sent() == {"text/a.jsonl.zst", "data/a.txt"}


def test_keys_and_history_below_a_named_folder_are_not_sent(project):
    sent = _sent(".")
    assert {"outputs/run/model.safetensors", "data/a.txt", "scratch.txt"} <= sent
    assert not {".env", ".git/HEAD", "key.pem", "auth_token"} & sent
    with pytest.raises(ConfigError, match=r"key\.pem has the name of a key or token"):
        _sent("key.pem")


def test_links_to_folders_are_not_followed_and_links_to_files_are(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "recipe.yaml").write_text("x")
    (project / "folder").symlink_to(elsewhere)
    (project / "loop").symlink_to(project)
    (project / "recipe.yaml").symlink_to(elsewhere / "recipe.yaml")
    (project / "broken.yaml").symlink_to(elsewhere / "gone.yaml")
    found = _sent()
    assert "recipe.yaml" in found
    assert not [name for name in found if name.startswith(("folder", "loop", "broken"))]


def test_the_same_files_make_the_same_package(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    collect(project).write(folder / "a.zip")
    for path in (project / "recipes" / "mine.yaml", project / "recipes"):
        os.utime(path, (1e9, 1e9))
    collect(project).write(folder / "b.zip")
    assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()
    with ZipFile(folder / "a.zip") as archive:
        assert set(archive.namelist()) == _sent()
        assert archive.read("recipes/mine.yaml") == (project / "recipes" / "mine.yaml").read_bytes()


def test_too_much_is_refused_before_it_is_sent_and_the_largest_are_named(project, listener, capsys):
    for name, size in {"corpus/part.jsonl": LIMIT, "notes.jsonl": 7 << 20}.items():
        (project / name).parent.mkdir(exist_ok=True)
        with (project / name).open("wb") as file:
            file.truncate(size)
    assert _refused(listener, PRETRAIN) == 2
    told = capsys.readouterr().err
    assert "corpus/part.jsonl (104.9 MB), notes.jsonl (7.3 MB)" in told
    assert ".rayignore" in told
    collect(project, ["corpus/"]).check()


def _refused(listener: socket.socket, command: list[str], *options: str) -> int:
    """The exit code of a submission that must not reach the cluster."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(SystemExit) as ended:
        main(["submit", "--address", address, *options, "--", *command])
    with pytest.raises(BlockingIOError):
        listener.accept()
    return ended.value.code


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["pretrain", "--sed", "1"], "unknown option 'sed'; did you mean 'seed'?"),
        ([*PRETRAIN, "--max_steps", "many"], "max_steps must be a whole number"),
        ([*PRETRAIN, "--max_steps", "0"], "max_steps must be above 0"),
        (["pretrain"], "needs --data_dir"),
        (["pretrian"], "'pretrian' after -- is no command to run as a job; did you mean 'pretrain'? commands: "),
        (["submit", "--list"], "'submit' after -- is no command to run as a job"),
        (["pretrain", "--config", "recipes/none.yaml"], "recipes/none.yaml cannot be read"),
        (["finetune", "--task", "rte", "--model", "/m", "--data_dir", "/d"], "outputs/finetune is relative"),
        ([*PRETRAIN, "--upload_dir", "up"], "upload_dir up is relative"),
        ([*PRETRAIN, "--tracking_uri", "sqlite:///mlflow.db"], "sqlite:///mlflow.db is a file of this folder"),
        (["doctor", "--paths", "here"], "paths here is relative"),
        (["doctor", "--", *TINY, *BLOCKS, "--output_dir", "out"], "output_dir out is relative"),
        ([*TINY, *OUTPUT, "--data_dir", "blocks"], "no such file or folder"),
        (["preprocess", "--inputs", "../x/*", "--tokenizer", "/t", "--output_dir", "/o"], "no such file or folder"),
        ([*PRETRAIN, "--tracking_uri", "postgresql://me:hush@db/mlflow"], "holds a password or token"),
    ],
)
def test_a_command_that_cannot_run_there_is_refused_before_anything_is_sent(project, listener, capsys, command, told):
    assert _refused(listener, command) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "hush" not in error


def test_what_lies_above_the_folder_is_not_sent(project, monkeypatch):
    monkeypatch.chdir(project / "code")
    with pytest.raises(ConfigError, match="lies outside"):
        prepare(SubmitConfig(command=["pretrain", "--config", "../recipes/mine.yaml"]))


def test_the_command_keeps_its_words_and_its_recipe_and_own_benchmark_arrive(project):
    words = ["pretrain", "--config", "recipes/mine.yaml", "--run_name", "two words"]
    job = prepare(SubmitConfig(command=["pmlm", *words], exclude=["recipes/", "benchmarks/"]))
    assert job.entrypoint == "pmlm pretrain --config recipes/mine.yaml --run_name 'two words'"
    assert "recipes/mine.yaml" in dict(job.package.files)
    sweep = [*("sweep", "--benchmark", "benchmarks/mine.py", "--model", "/m"), *("--data_dir", "/d")]
    job = prepare(SubmitConfig(command=[*sweep, "--output_dir", "/shared/sweep"], exclude=["benchmarks/"]))
    assert "benchmarks/mine.py" in dict(job.package.files)


def test_the_name_of_a_sweep_to_compare_is_no_path(project):
    job = prepare(SubmitConfig(command=["compare", "--sweep", "rte-asha", "--output_dir", "/shared/compare"]))
    assert job.entrypoint == "pmlm compare --sweep rte-asha --output_dir /shared/compare"


def test_a_recipe_with_a_password_is_refused_by_its_line(project):
    (project / "recipes" / "mine.yaml").write_text("pretrain:\n  tracking_uri: postgresql://me:hush@db/mlflow\n")
    with pytest.raises(ConfigError, match="line 2, holds a password") as refused:
        prepare(SubmitConfig(command=["pretrain", "--config", "recipes/mine.yaml", *PRETRAIN[1:]]))
    assert "hush" not in str(refused.value)


def test_the_tracking_address_goes_with_the_job(project, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    job = prepare(SubmitConfig(command=PRETRAIN))
    assert job.variables == {
        "MLFLOW_TRACKING_URI": "http://tracking:5000",
        "RAY_JOB_STOP_WAIT_TIME_S": "360",
    }  # no commit: this folder is no clone of pmlm
    assert job.metadata["tracking_uri"] == "http://tracking:5000"
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "uri", ["postgresql://me:hush@db/mlflow", "http://me:hush@tracking:5000", "https://t/?token=hush", "sqlite:///m.db"]
)
def test_an_address_with_a_password_or_of_this_folder_stays_here(project, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    job = prepare(SubmitConfig(command=PRETRAIN))
    assert "hush" not in json.dumps([job.entrypoint, job.variables, job.metadata])
    assert "MLFLOW_TRACKING_URI" not in job.variables
    told = capsys.readouterr().out
    assert "set it on the nodes" in told
    assert "hush" not in told


def test_nothing_answers(project, capsys, listener):
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(SystemExit) as ended:
        main(["submit", "--address", f"http://127.0.0.1:{port}", "--list"])
    assert ended.value.code == 1
    assert f"no Ray answers at http://127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("before", [["submit", "--no_wait"], ["doctor"]])
def test_a_command_without_its_dashes_is_told_where_they_go(before, project, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*before, "pretrain", "--preset", "tiny"])
    assert ended.value.code == 2
    assert f"pmlm {before[0]}: put -- before the command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "told"), [(None, "pmlm submit --logs a"), ("http://h:1", "--address http://h:1 --logs a")]
)
def test_what_comes_next_is_asked_of_the_same_cluster(address, told, capsys):
    say_next(address, "--logs a")
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "needs a command"),
        ({"command": PRETRAIN, "list": True}, "give one of"),
        ({"stop": ""}, "--stop needs the id"),
        ({"command": PRETRAIN, "no_wait": True, "retries": 1}, "leave out --retries or --no_wait"),
        ({"command": PRETRAIN, "retries": -1}, "retries must be 0 or more"),
        ({"list": True, "address": "10.0.0.1:6379"}, "not that of a dashboard"),
    ],
)
def test_options_that_cannot_be_followed(options, told):
    with pytest.raises(ConfigError, match=told):
        SubmitConfig(**options).validate()


@pytest.mark.parametrize(
    ("status", "code", "error_type", "lost"),
    [
        ("FAILED", -9, "JOB_ENTRYPOINT_COMMAND_ERROR", True),
        ("FAILED", 137, "JOB_ENTRYPOINT_COMMAND_ERROR", True),
        ("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED", True),
        ("FAILED", 1, "JOB_ENTRYPOINT_COMMAND_ERROR", False),
        ("FAILED", 2, "JOB_ENTRYPOINT_COMMAND_ERROR", False),
        ("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", False),
        ("STOPPED", None, None, False),
        ("SUCCEEDED", 0, None, False),
    ],
)
def test_only_what_was_lost_is_submitted_again(status, code, error_type, lost):
    assert was_lost(SimpleNamespace(status=status, driver_exit_code=code, error_type=error_type)) == lost


def test_a_head_that_is_not_ready_for_jobs_is_asked_again_and_one_that_refuses_is_not(monkeypatch, capsys):
    monkeypatch.setattr(submitting, "_AGAIN_S", 0.01)
    answers = ["status code 500: No available agent to submit job, please try again later."] * 2

    def submit_job(**asked):
        assert asked == {"entrypoint": "pmlm doctor"}
        if answers:
            raise RuntimeError(answers.pop())

    client = SimpleNamespace(submit_job=submit_job)
    submitting._hand_in(client, entrypoint="pmlm doctor")
    assert capsys.readouterr().out.count("trying again for up to 60 s") == 1
    answers += ["status code 500: no such resource"]
    with pytest.raises(RuntimeError, match="no such resource"):
        submitting._hand_in(client, entrypoint="pmlm doctor")
    monkeypatch.setattr(submitting, "_NOT_READY_S", 0.05)
    answers += ["No available agent"] * 100
    with pytest.raises(RuntimeError, match="No available agent"):
        submitting._hand_in(client, entrypoint="pmlm doctor")


def test_a_run_is_tagged_with_every_job_that_went_on_with_it(tmp_path, monkeypatch):
    def tags_in(job: str) -> dict[str, str]:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": job}}))
        MlflowSink(tmp_path, "http://127.0.0.1:9", "e", "run", warn=lambda text: None).finish("KILLED", timeout=0)
        record = Record.load(tmp_path)
        assert record is not None
        return record.tags

    assert tags_in("a-1") == {"ray_job_id": "a-1", "ray_job_ids": "a-1"}
    assert tags_in("b-2") == tags_in("b-2") == {"ray_job_id": "b-2", "ray_job_ids": "a-1 b-2"}
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert job_tags({}) == {}
