"""What docs/security.md promises and code alone can hold: nothing from elsewhere is run, or leads elsewhere."""

import ast
import dataclasses
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.pretrain import upload
from pipelines.registry import models
from pipelines.run_folder import RunDir
from pipelines.tracking import artifacts
from pipelines.tracking.record import Record
from pipelines.upload import finished, lease
from pmlm_core import storage
from pmlm_core.corpus.ledger import LedgerRow, load_row, save_row
from pmlm_core.corpus.manifest import Manifest, ShardEntry
from pmlm_core.corpus.special import SpecialIds
from pmlm_core.errors import CheckpointError, DataError
from pmlm_core.inside import leads_outside
from pmlm_core.model import PmlmConfig, PmlmForMaskedLM, PmlmForPreTraining
from pmlm_core.training import checkpoint
from pmlm_core.training.checkpoint import Contents

ROOT = Path(__file__).parent.parent
OUTSIDE = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    "a\\..\\x",
    "x?endpoint_override=h:1",
    "a//b",
    ".",
    "",
    3,
]

# Who may read a pickle: tasks of Ray, of what the driver of the same run handed them.
_PICKLES = {
    "pipelines/finetune/encode.py",
    "pipelines/predict/work.py",
    "pipelines/preprocess/ray_stage.py",
    "pipelines/tokenizer/draw.py",
}
# What runs what is written in a file or a text.
_NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "runpy.run_module"),
    *("joblib.load", "numpy.load", "np.load", "pandas.read_pickle", "marshal.loads", "shelve.open"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "tarfile.open", "shutil.unpack_archive"),
}


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File, name and node of every call in the code that is installed."""
    for package in ("pmlm_core", "pipelines", "tune_spaces"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def test_nothing_that_is_read_can_run_code():
    found = list(_calls())
    assert len(found) > 5000, "the code was not found"
    assert not [(file, name) for file, name, _ in found if name in _NEVER]
    assert {file for file, name, _ in found if name in ("pickle.load", "pickle.loads", "pickle.Unpickler")} == _PICKLES
    # One command reads published checkpoints, which are pickles, by torch's reader of weights alone.
    loads = [(file, node) for file, name, node in found if name == "torch.load"]
    assert [file for file, _ in loads] == ["pipelines/convert/weights.py"]
    assert all("weights_only=True" in ast.unparse(node) for _, node in loads)
    words = [(file, word.arg, ast.unparse(word.value)) for file, _, node in found for word in node.keywords]
    assert not [each for each in words if each[1] in ("trust_remote_code", "allow_pickle") and each[2] != "False"]
    assert not [each for each in words if each[1] == "shell" and each[2] != "False"]
    # Archives: one is written, for a cluster; none is ever unpacked.
    assert {file for file, name, _ in found if name.endswith("ZipFile")} == {"pipelines/submit/package.py"}
    assert not [file for file, name, _ in found if name.endswith((".extractall", ".extract"))]


class _Runs:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_weights_are_never_loaded(tmp_path):
    model = PmlmForPreTraining(PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        PmlmForMaskedLM.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs(tmp_path / "ran")))
    with pytest.raises(OSError, match="safetensors"):
        PmlmForPreTraining.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_index_of_weights_that_leads_elsewhere_is_refused(tmp_path):
    model = PmlmForPreTraining(PmlmConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    PmlmForPreTraining.from_pretrained(tmp_path / "model")  # as it is, it loads
    index = tmp_path / "model" / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    file = next(iter(told["weight_map"].values()))
    shutil.move(tmp_path / "model" / file, tmp_path / file)
    told["weight_map"] = {n: f"../{file}" if f == file else f for n, f in told["weight_map"].items()}
    index.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=rf"names a file '\.\./{file}'"):
        PmlmForMaskedLM.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_a_folder(name):
    assert leads_outside(["model.safetensors", name]) == name
    assert leads_outside(["config.json", "a/b c-1.arrow", ".hidden", "ä=1+2@3"]) is None


def _checkpoint(root: Path, step: int) -> Path:
    return checkpoint.write(root, Contents(step, {}, {}), lambda folder: (folder / "config.json").write_text("{}"))


@pytest.mark.parametrize("name", ["../../../stolen", "/tmp/stolen", "~/stolen"])
def test_an_uploaded_checkpoint_writes_nothing_outside_of_its_folder(tmp_path, name):
    home, here = tmp_path / "store" / "run", RunDir(tmp_path / "deep" / "down" / "run")
    for folder in (home, here.path):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    _checkpoint(home / "checkpoints", 10)
    evil = _checkpoint(home / "checkpoints", 20)
    manifest = json.loads((evil / checkpoint.MANIFEST).read_text())
    (evil / "payload").write_text("x")
    manifest["files"][name] = {"bytes": 1, "sha256": checkpoint.sha256(evil / "payload")}
    (evil / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    before = {path for path in tmp_path.rglob("*") if here.path not in path.parents}
    said: list[str] = []
    fetched = upload.fetch(here, str(tmp_path / "store"), None, lambda known: None, said.append)
    assert fetched is not None
    assert fetched.name == "step-00000010"
    assert f"names a file '{name}'" in said[0]
    now = {path for path in tmp_path.rglob("*") if here.path not in path.parents}
    assert now == before - {evil / checkpoint.MANIFEST} | {home / lease.NOTE}  # it counts as copied no more
    (evil / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.Damaged, match="none of this folder"):
        checkpoint.read_manifest(evil)


@pytest.mark.parametrize("where", ["files", "beside"])
@pytest.mark.parametrize("name", ["../../stolen", "/tmp/stolen", "~/stolen"])
def test_what_was_finished_elsewhere_writes_nothing_outside_of_its_folder(tmp_path, name, where):
    home, here = tmp_path / "store" / "seed-0", tmp_path / "deep" / "down" / "seed-0"
    made = tmp_path / "made"
    made.mkdir()
    (made / "scores.json").write_text("{}")
    finished.Finished().send(made, str(home))
    manifest = json.loads((home / finished.MANIFEST).read_text())
    manifest[where][name] = manifest["files"]["scores.json"]
    (home / finished.MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "stolen").write_text("not the run's")
    before = {path for path in tmp_path.rglob("*") if here not in path.parents}
    assert finished.Finished().send(made, str(home))  # over it; nothing else is removed
    (home / finished.MANIFEST).write_text(json.dumps(manifest))
    reason = finished.take(str(home), here, ["scores.json"])
    assert reason is None if where == "beside" else f"names a file '{name}'" in str(reason)
    after = {path for path in tmp_path.rglob("*") if here not in path.parents}
    assert after - before <= {here, here.parent, here.parent.parent}
    assert before - after <= {home / finished.MANIFEST}
    assert not Path("/tmp/stolen").exists()


def _manifest(**changed: str) -> Manifest:
    entry = ShardEntry("train/a.arrow", 1, 8, 1, 100, "0" * 64)
    return Manifest(
        tokenizer_fingerprint="t",
        vocab_size=50,
        special_ids=SpecialIds(sos=0, pad=1, eos=2, unk=3, mask=4, pseudo=5),
        max_length=8,
        views=1,
        splits={"train": [dataclasses.replace(entry, **changed)]},
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"path": "../../a.arrow"},
        {"path": "/a.arrow"},
        {"sha256": "../../.bashrc"},
        {"part_bytes": [100], "part_sha256": ["../../.bashrc"]},
    ],
)
def test_blocks_whose_shards_lie_elsewhere_are_refused(tmp_path, changed):
    _manifest().save(str(tmp_path))
    assert Manifest.load(str(tmp_path)).rows("train") == 1
    _manifest(**changed).save(str(tmp_path))
    with pytest.raises(DataError, match=r"manifest\.json: a shard is named .* none of this folder's; do not use these"):
        Manifest.load(str(tmp_path))


def test_a_ledger_row_whose_shards_lie_elsewhere_counts_as_none(tmp_path):
    row = LedgerRow("k", "d", "f", [], [], {}, {"counts": {}, "kept": []}, {"train": _manifest().splits["train"][0]})
    save_row(str(tmp_path), row)
    assert load_row(str(tmp_path), "k") == row
    save_row(str(tmp_path), dataclasses.replace(row, shards=_manifest_shards(path="../a.arrow")))
    assert load_row(str(tmp_path), "k") is None


def _manifest_shards(**changed: str) -> dict[str, ShardEntry]:
    return {"train": _manifest(**changed).splits["train"][0]}


def test_the_record_of_another_s_run_sends_no_files_of_ours(tmp_path):
    """`pmlm sync` on a run folder from elsewhere: what it may ask for are files of the run, and models."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "id_rsa").write_text("x")
    run, store = tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db"
    warned: list[str] = []
    record = Record(store, "e", "run", run_id="0" * 32, pending_artifacts=["../secret/id_rsa"])
    record.save(run)
    assert not artifacts.send_pending(run, store, warn=warned.append)
    assert "'../secret/id_rsa', which is none of this run" in warned[0]
    record.pending_model = {"name": "m", "checkpoint": str(tmp_path / "secret")}
    record.save(run)
    assert models.register_pending(run, store, warn=warned.append) is None
    assert "secret holds no model" in warned[1]
    assert not storage.exists(f"{tmp_path}/mlflow.db")
