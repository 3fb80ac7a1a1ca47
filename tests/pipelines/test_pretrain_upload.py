"""Checkpoints copied to a real S3 server or a folder, and a run that goes on from them after its disk was lost."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.fill.config import FillConfig
from pipelines.fill.run import run as fill
from pipelines.pretrain import run as stage
from pipelines.pretrain import upload
from pipelines.run_folder import Events, RunDir
from pipelines.upload import background, checkpoints, lease
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError
from pmlm_core.training import checkpoint
from tests.bucket_server import bucket_on_a_server, put_folder
from tests.pipelines.test_pretrain_loop import OPTIONS, Pulled, weights
from tests.pipelines.training_without_ray import config_for, curve, plan_of, pretrain_here, train_here


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory, blocks) -> Path:
    return train_here(config_for(blocks, tmp_path_factory.mktemp("peace"), **OPTIONS))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with bucket_on_a_server("runs") as uri:
        yield uri


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "elsewhere")
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMLM_STORE_SECONDS", "0.5")
    for name, seconds in (("_RENEW_S", 0.2), ("_LOST_S", 1.0), ("_LOOK_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


def start(options: dict[str, Any], pull_at: int | None = None) -> Path:
    """The command; the plug is pulled at the report of a step."""

    def report(figures) -> None:
        if figures["step"] == pull_at:
            raise Pulled

    if pull_at is None:
        return pretrain_here(options, report)
    with pytest.raises(Pulled):
        pretrain_here(options, report)
    return Path(options["output_dir"]) / "run"


def uploaded(place: str) -> list[int]:
    """Steps of the checkpoints that are whole there."""
    return [checkpoint.step_of(name) or 0 for name in checkpoints._whole(storage.join(place, "run", "checkpoints"))]


def options_with(blocks: str, output: Path, place: str, **more: Any) -> dict[str, Any]:
    return config_for(blocks, output, **{**OPTIONS, "cpus_per_worker": 1, "upload_dir": place, **more})


def test_a_run_whose_disk_was_lost_goes_on_from_the_upload_bitwise(tmp_path, blocks, in_peace, place, capsys):
    options = options_with(blocks, tmp_path / "out", place)
    run = start(options, pull_at=16)
    assert uploaded(place) == [5, 10, 15]
    shutil.rmtree(tmp_path / "out")
    assert start(options) == run
    out = " ".join(capsys.readouterr().out.split())
    assert "fetched step-00000015 of this run from" in out
    assert any("resumed from the checkpoint of step 15" in event["text"] for event in Events(RunDir(run)).read()[0])
    assert curve(run) == curve(in_peace)
    assert curve(run, "eval/") == curve(in_peace, "eval/")
    here, there = weights(run, 24), weights(in_peace, 24)
    assert all(torch.equal(here[name], there[name]) for name in there)
    assert uploaded(place) == [5, 10, 15, 20, 24]
    shutil.rmtree(tmp_path / "out")
    start(options)
    assert "finished: all 24 steps were done before" in capsys.readouterr().out
    only = checkpoint.folder_of(run / "checkpoints", 24)
    assert checkpoint.damage(only) is None
    (only / checkpoint.OPTIMIZER).write_bytes(b"rotten")
    with pytest.raises(CheckpointError, match="no checkpoint of this run is whole; the damaged ones are kept"):
        start({**options, "upload_dir": str(tmp_path / "empty")})
    start(options)
    assert "fetched step-00000024 of this run" in capsys.readouterr().out
    assert checkpoint.damage(only) is None


def test_a_half_uploaded_checkpoint_is_passed_over_and_a_damaged_one_said(tmp_path, blocks, place, capsys):
    options = options_with(blocks, tmp_path / "out", place)
    start(options, pull_at=16)
    home = storage.join(place, "run", "checkpoints")
    storage.remove_file(storage.join(home, "step-00000015", "checkpoint.json"))
    storage.write_bytes(storage.join(home, "step-00000010", "optimizer.safetensors"), b"rotten")
    shutil.rmtree(tmp_path / "out")
    plan = plan_of(options)
    fetched = stage.fetch_upload(plan, None)
    assert fetched == checkpoint.folder_of(plan.run.checkpoints, 5)
    assert [path.name for path in plan.run.checkpoints.iterdir()] == ["step-00000005"]
    assert "step-00000010" in (out := capsys.readouterr().out)
    assert "is damaged (optimizer.safetensors has 6 bytes" in out
    start(options, pull_at=16)  # the damaged one is made again, and copied again
    assert uploaded(place) == [5, 10, 15]
    shutil.rmtree(tmp_path / "out")
    assert stage.fetch_upload(plan_of(options), None) is not None
    assert "is damaged" not in capsys.readouterr().out
    for name in ("step-00000015", "step-00000010", "step-00000005"):
        storage.write_bytes(storage.join(home, name, "config.json"), b"rotten")
    shutil.rmtree(tmp_path / "out")
    for _ in range(2):  # it is for the user to decide
        with pytest.raises(CheckpointError, match=r"no checkpoint of this run in .* is whole"):
            stage.fetch_upload(plan_of(options), None)


def test_a_damaged_copy_is_made_and_copied_again_where_an_older_checkpoint_is_here(tmp_path, blocks, place, capsys):
    options = options_with(blocks, tmp_path / "out", place)
    run = start(options, pull_at=16)
    here, there = run / "checkpoints" / "step-00000015", storage.join(place, "run", "checkpoints", "step-00000015")
    whole = (here / checkpoint.OPTIMIZER).read_bytes()
    (here / checkpoint.OPTIMIZER).write_bytes(b"rotten")  # before it was copied
    storage.write_bytes(storage.join(there, checkpoint.OPTIMIZER), b"rotten")
    start(options, pull_at=16)
    assert f"step-00000015 in {place}/run is damaged" in " ".join(capsys.readouterr().out.split())
    assert (here / checkpoint.OPTIMIZER).read_bytes() == whole
    assert uploaded(place) == [5, 10, 15]
    assert storage.read_bytes(storage.join(there, checkpoint.OPTIMIZER)) == whole


def test_only_the_newest_and_the_best_stay_there(tmp_path, blocks, place):
    run = start(options_with(blocks, tmp_path / "out", place, keep_checkpoints=1, eval_steps=5))
    best = checkpoint.best(run / "checkpoints")
    assert best is not None
    assert set(uploaded(place)) == {24, checkpoint.step_of(best.name)}
    assert set(storage.folders_in(storage.join(place, "run", "checkpoints"))) == {
        path.name for path in checkpoint.all_steps(run / "checkpoints")
    }


def test_the_best_stays_there_when_it_is_lost_here(tmp_path, blocks, place):
    run = RunDir(train_here(config_for(blocks, tmp_path / "out", **OPTIONS)))
    steps = checkpoint.all_steps(run.checkpoints)
    for folder, score in zip(steps, (3.0, 1.0, 2.0, None, None), strict=True):
        manifest = checkpoint.read_manifest(folder) | {"score": score}
        (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    home = upload.home_of(run, place)
    said: list[str] = []
    assert checkpoints.mirror(run, home, 9, said.append) == [folder.name for folder in reversed(steps)]
    assert checkpoints.mirror(run, home, 9, said.append) == []
    assert not said
    for folder in steps[1:-1]:
        shutil.rmtree(folder)
    (steps[0] / checkpoint.MANIFEST).write_text('{"torn')
    (steps[-1] / checkpoint.MANIFEST).write_text((steps[-1] / checkpoint.MANIFEST).read_text() + "\n")  # written anew
    for _ in range(2):
        uploads = upload.uploads_of(run, place, 2, events := Events(run))
        for _ in range(2):
            uploads._mirror(last=False)
    told = [(event["kind"], event["text"]) for event in events.read()[0] if event["kind"] in ("uploaded", "warning")]
    assert [kind for kind, _ in told] == ["warning", "uploaded", "warning"]  # each command once
    assert "step-00000005 is not uploaded" in told[0][1]
    assert uploaded(place) == [10, 20, 24]


def test_a_store_that_is_away_costs_a_warning_and_the_end_of_the_run_catches_up(tmp_path, blocks, in_peace, capsys):
    place = tmp_path / "elsewhere"
    options = options_with(blocks, tmp_path / "out", str(place))
    run = start(options, pull_at=8)
    shutil.move(place, tmp_path / "away")
    place.write_text("in the way")  # nothing can be made below a file

    def warned() -> bool:
        warnings = [event["text"] for event in Events(RunDir(run)).read()[0] if event["kind"] == "warning"]
        return any("cannot be uploaded" in text and "the next upload catches up" in text for text in warnings)

    def back(figures) -> None:
        if figures["step"] == 20:
            deadline = time.monotonic() + 30
            while not warned():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            place.unlink()
            shutil.move(tmp_path / "away", place)

    pretrain_here(options, back)
    assert "has not answered" in capsys.readouterr().out
    assert curve(run) == curve(in_peace)
    assert uploaded(str(place)) == [5, 10, 15, 20, 24]
    assert not (run / ".uploading").exists()


def test_a_second_machine_is_refused_while_the_first_lives_and_takes_over_when_it_is_dead(
    tmp_path, blocks, place, capsys, monkeypatch
):
    monkeypatch.setattr(lease, "_LOST_S", 5.0)  # a busy machine may hold up the thread that renews
    first = options_with(blocks, tmp_path / "a", place, max_steps=2, eval_steps=2)
    second = {**first, "output_dir": str(tmp_path / "b")}
    run = plan_of(first).run
    home = upload.home_of(run, place)
    with lease.kept(run, home, upload.COMMAND):
        lease.take(run, home, upload.COMMAND, print)
        with pytest.raises(ConfigError, match=r"in use by pmlm pretrain \(process .*another folder: end it"):
            start(second)
        assert lease.NOTE in storage.names_in(home)
        assert uploaded(place) == []
    assert lease.NOTE not in storage.names_in(home)
    lease.take(run, home, upload.COMMAND, print)  # and killed: the note stays
    capsys.readouterr()
    start(first, pull_at=2)  # the same machine goes on at once
    lease.take(run, home, upload.COMMAND, print)
    assert "is in use" not in capsys.readouterr().out
    start(second)
    assert "waiting for up to" in capsys.readouterr().out
    assert uploaded(place) == [2]
    assert lease.NOTE not in storage.names_in(home)
    with lease.kept(run, home, upload.COMMAND):
        lease.take(run, home, upload.COMMAND, print)
        lease._write(plan_of(second).run, home, upload.COMMAND)  # after a while without a store
        deadline = time.monotonic() + 10
        while "both commands upload there" not in capsys.readouterr().out:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("same_machine", [True, False])
def test_a_note_whose_process_is_seen_to_be_gone_is_not_waited_for(
    tmp_path, blocks, place, capsys, monkeypatch, same_machine
):
    monkeypatch.setattr(lease, "_LOST_S", 0.5)
    run, other = (plan_of(options_with(blocks, tmp_path / name, place, max_steps=2)).run for name in "ab")
    home = upload.home_of(run, place)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with monkeypatch.context() as there:
        there.setattr("os.getpid", lambda: ended.pid)
        if not same_machine:
            there.setattr(lease, "_pids_of", lambda: "another start of the machine, or another container")
        lease.take(other, home, upload.COMMAND, print)
    lease.take(run, home, upload.COMMAND, print)
    said = capsys.readouterr().out
    if same_machine:
        assert said == ""
    else:
        assert f"delete {storage.join(home, lease.NOTE)}" in said


def test_a_command_that_began_without_a_store_tells_of_the_other_when_it_is_back(tmp_path, blocks, place, capsys):
    run = plan_of(options_with(blocks, tmp_path / "a", place, max_steps=2)).run
    other = plan_of(options_with(blocks, tmp_path / "b", place, max_steps=2)).run
    home = upload.home_of(run, place)
    with lease.kept(run, home, upload.COMMAND):  # nothing could be taken
        deadline = time.monotonic() + 10
        while "both commands upload there" not in capsys.readouterr().out:
            assert time.monotonic() < deadline
            lease._write(other, home, upload.COMMAND)
            lease._held.discard(home)  # it is another machine's
            time.sleep(0.1)


def test_who_leaves_does_not_wait_for_a_store_that_is_away(tmp_path, blocks, monkeypatch):
    run = plan_of(options_with(blocks, tmp_path / "out", "s3://away", max_steps=2)).run
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PMLM_STORE_SECONDS", "100")
    monkeypatch.setattr(background, "_LEAVING_PATIENCE_S", 0.1)
    uploads, begun = upload.uploads_of(run, "s3://away", 2, Events(run)), time.monotonic()
    uploads.close(leaving=True)
    assert time.monotonic() - begun < 60
    (warning,) = [event["text"] for event in Events(run).read()[0] if event["kind"] == "warning"]
    assert "the same command again catches up" in warning


def test_a_finished_run_is_uploaded_by_the_same_command(tmp_path, blocks, place, capsys):
    options = options_with(blocks, tmp_path / "out", place, max_steps=2, eval_steps=2)
    start({**options, "upload_dir": None})
    start(options)
    assert uploaded(place) == [2]
    assert "step-00000002 uploaded to" in " ".join(capsys.readouterr().out.split())


def test_without_checkpoint_here_a_store_that_is_away_is_refused(tmp_path, blocks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = f"s3://runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    with pytest.raises(CheckpointError, match="command again when the store is back"):
        stage.fetch_upload(plan_of(options_with(blocks, tmp_path / "out", away)), None)


def test_another_run_in_its_place_is_refused(tmp_path, blocks, place):
    start(options_with(blocks, tmp_path / "a", place, max_steps=2))
    with pytest.raises(ConfigError, match=r"seed was 0 and is 3.*another run_name"):
        start(options_with(blocks, tmp_path / "b", place, max_steps=2, seed=3))
    storage.write_bytes(storage.join(place, "run", "run.json"), b"{}")
    with pytest.raises(ConfigError, match="is no record of a run"):
        start(options_with(blocks, tmp_path / "c", place, max_steps=2))


def test_a_run_may_start_from_a_checkpoint_in_a_bucket(tmp_path, blocks, in_peace, bucket, monkeypatch, capsys):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    home = f"{bucket}/{tmp_path.name}"
    put_folder(in_peace / "checkpoints" / "step-00000024", home)
    sizes = dict.fromkeys(("num_hidden_layers", "hidden_size", "num_attention_heads"))
    fresh = {**OPTIONS, **sizes, "max_steps": 1, "warmup_steps": 0, "eval_rows": 0}
    for name, first in (("remote", home), ("local", str(in_peace / "checkpoints" / "step-00000024"))):
        train_here(config_for(blocks, tmp_path / name, **fresh, init_checkpoint=first))
    here, there = (weights(tmp_path / name / "run", 1) for name in ("local", "remote"))
    assert all(torch.equal(here[name], there[name]) for name in there)
    fill(FillConfig(model=home, text=["The old [MASK] went into the house."]))
    assert "[MASK] 1" in capsys.readouterr().out


def test_blocks_in_a_bucket_train_the_same_weights(tmp_path, blocks, in_peace, bucket, monkeypatch):
    monkeypatch.setenv("PMLM_CACHE", str(tmp_path / "cache"))
    remote = f"{bucket}/{tmp_path.name}"
    put_folder(blocks, remote)
    put_folder(f"{blocks}/tokenizer", storage.join(remote, "tokenizer"))
    run = train_here(config_for(remote, tmp_path / "out", **OPTIONS))
    assert curve(run) == curve(in_peace)
    here, there = weights(run, 24), weights(in_peace, 24)
    assert all(torch.equal(here[name], there[name]) for name in there)
    assert {path.suffix for path in (tmp_path / "cache" / "blocks").iterdir()} == {".batch"}


def test_an_upload_outlives_the_pruning_of_its_folder(tmp_path):
    folder, held = tmp_path / "step-00000001", tmp_path / "held"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    checkpoints._hold(folder, held)
    shutil.rmtree(folder)
    assert (held / "model.safetensors").read_bytes() == b"weights"
    assert not checkpoints._send(
        RunDir(tmp_path), folder.name, str(tmp_path / "there")
    )  # pruned before: nothing to copy
    assert not (tmp_path / "there").exists()
