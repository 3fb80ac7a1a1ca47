"""Places as the doctor sees them: real folders and a real S3 server, nodes that lie on this machine."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from pipelines.doctor import places
from pipelines.doctor.demands import Job, Place
from pipelines.doctor.examined import Examined, examine
from pipelines.doctor.finding import Finding
from pipelines.doctor.nodes import Answer, Node, Nodes
from pipelines.doctor.places import Probe, Seen, Touched
from pipelines.doctor.pretraining import Weight
from pipelines.doctor.prober import Prober
from pipelines.doctor.storage import check
from tests.bucket_server import bucket_on_a_server


class Elsewhere(Prober):
    """A node on which the same path is another disk: the folder `other`."""

    def __init__(self, other: Path) -> None:
        super().__init__()
        self._other = str(other)

    def touch(self, probe: Probe, name: str) -> Touched:
        return super().touch(replace(probe, folder=self._other), name)

    def look(self, path: str) -> Seen:
        return super().look(self._other)


class Hanging(Prober):
    """A node whose mount does not answer."""

    def touch(self, probe: Probe, name: str) -> Touched:
        import time

        time.sleep(30)
        raise AssertionError("nobody waits so long")


def nodes(*probers: Prober, timeout: float = 20.0) -> Nodes:
    made = Nodes(timeout)
    made._probers = {f"node{number}": prober for number, prober in enumerate(probers, 1)}
    made.nodes = [Node(label, "") for label in made._probers]
    return made


def found(place: Place, *probers: Prober, timeout: float = 20.0) -> list[Finding]:
    return list(check([examine(place, nodes(*probers, timeout=timeout))], ()).findings)


def output(path: Path | str) -> Place:
    return Place(str(path), "pretrain output_dir", written=True, renames=True)


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_shared_folder_is_fine_and_left_as_it_was(tmp_path):
    (tmp_path / "kept").write_text("mine")
    assert not found(output(tmp_path / "new" / "runs"), Prober(), Prober(), Prober())
    assert everything_in(tmp_path) == [tmp_path / "kept"]


def test_equal_paths_on_two_disks_are_found(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (finding,) = found(output(tmp_path / "here"), Prober(), Elsewhere(tmp_path / "there"))
    assert finding.severity == "error"
    assert finding.where == "node2"
    assert "not the file that was written to it" in finding.what
    assert "shared file system" in finding.remedy
    assert everything_in(tmp_path) == [tmp_path / "here", tmp_path / "there"]


def test_a_folder_that_another_node_does_not_have_is_found(tmp_path):
    (finding,) = found(output(tmp_path / "here"), Prober(), Elsewhere(tmp_path / "there"))
    assert "there is no such folder" in finding.what
    assert not everything_in(tmp_path)


def test_nodes_that_do_not_see_what_training_needs_are_served_and_named(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    elsewhere, hanging = Elsewhere(tmp_path / "there"), Hanging()
    written = replace(output(tmp_path / "here"), through_driver=True)
    read = Place(str(tmp_path / "here"), "pretrain data_dir", written=False, through_driver=True)
    for place in (written, read):
        told = check([examine(place, nodes(Prober(), elsewhere))], ())
        assert not told.findings
        assert told.summary.endswith("; to node2, which do not see all, this command's machine sends files")
    (finding,) = found(written, Prober(), hanging, timeout=1.0)
    assert finding.severity == "error"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "another").touch()
    assert not found(written, Prober(), elsewhere)  # another disk under the same name
    (finding,) = found(read, Prober(), elsewhere)  # but what is there would be read
    assert "files or their sizes differ" in finding.what


def test_a_node_that_writes_where_nobody_looks_is_found(tmp_path):
    class Aside(Prober):
        def touch(self, probe: Probe, name: str) -> Touched:
            return super().touch(probe, name + "x")

        def tidy(self, probe: Probe, name: str) -> None:
            super().tidy(probe, name + "x")

    (finding,) = found(output(tmp_path / "here"), Prober(), Aside())
    assert "what the node writes there is not seen here" in finding.what
    assert not everything_in(tmp_path)


def test_a_mount_that_hangs_is_found_in_time(tmp_path):
    (finding,) = found(output(tmp_path), Prober(), Hanging(), timeout=1.0)
    assert finding.where == "node2"
    assert "no end within 1 s" in finding.what
    assert not everything_in(tmp_path)


def test_a_place_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = found(output(tmp_path / "file" / "runs"), Prober())
    assert finding.severity == "error"
    assert "cannot be written to from here" in finding.what


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    class Reader(Prober):
        def touch(self, probe: Probe, name: str) -> Touched:
            return super().touch(probe, "no/such/../" + "x" * 300)

    (finding,) = found(output(tmp_path), Reader())
    assert "cannot be written to" in finding.what


def judged(place: Place, touched: Touched, jobs: tuple[Job, ...] = (), rename_failure: str | None = None) -> Finding:
    told = Examined(place, None, {"node1": Answer(touched)}, {"node1": True}, rename_failure)
    (finding,) = check([told], jobs).findings
    return finding


def test_what_a_place_lacks():
    good = Touched(read=True, wrote=True, free=10**12, lock="held", file_system="nfs4")
    weight = Weight(10**9, 5 * 10**12)
    job = Job("pretrain", 1, 1, 0.0, False, "/shared/pretrain", weight)
    place = output("/shared/pretrain")
    assert not check([Examined(place, None, {"node1": Answer(good)}, {"node1": True})], ()).findings
    assert "checkpoints of the run take up to 5,000.0 GB" in judged(place, good, (job,)).what
    assert "only 500.0 MB free" in judged(place, replace(good, free=5 * 10**8)).what
    assert "locks do not reach" in judged(place, replace(good, lock="free")).what
    assert "locks do not reach" in judged(place, replace(good, lock="none")).what
    assert "object store mounted as a folder" in judged(place, replace(good, file_system="fuse.s3fs")).what
    assert "folders cannot be renamed" in judged(place, good, rename_failure="Operation not permitted").what


def test_what_is_only_read_has_to_be_the_same(tmp_path):
    for name in ("a", "copy", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.jsonl").write_text("{}" if name == "other" else '{"text": "a"}')
    place = Place(str(tmp_path / "a"), "preprocess inputs", written=False)
    assert not found(place, Prober(), Elsewhere(tmp_path / "copy"))
    (finding,) = found(place, Prober(), Elsewhere(tmp_path / "other"))
    assert finding.where == "node2"
    assert "files or their sizes differ" in finding.what
    (finding,) = found(place, Prober(), Elsewhere(tmp_path / "none"))
    assert "it is not there" in finding.what
    everywhere_else = found(place, Elsewhere(tmp_path / "none"), Elsewhere(tmp_path / "none"))
    assert [finding.where for finding in everywhere_else] == ["node1", "node2"], "though they agree among themselves"


def test_what_does_not_exist_yet(tmp_path):
    place = Place(str(tmp_path / "blocks"), "pretrain data_dir", written=False)
    seen = examine(place, nodes(Prober()))
    assert check([seen], ()).severity == "error"
    assert check([replace(seen, place=replace(place, given=False))], ()).severity == "warning"
    assert check([seen], (), made=(str(tmp_path),)).severity == "ok"  # a stage before makes it
    assert check([seen], (), made=(str(tmp_path / "bl"),)).severity == "error"


def test_the_kind_of_a_file_system_is_that_of_the_innermost_mount(tmp_path):
    table = tmp_path / "mounts"
    table.write_text(
        "d / ext4 rw 0 0\nx /shared nfs4 rw 0 0\ny /shared/b fuse.s3fs rw 0 0\nz /sharedother xfs rw 0 0\n"
    )
    kinds = [places.file_system_of(path, table) for path in ("/", "/shared/a", "/shared/b/c", "/sharedx")]
    assert kinds == ["ext4", "nfs4", "fuse.s3fs", "ext4"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket on a real server."""
    with bucket_on_a_server("doctor") as uri:
        yield uri


def test_a_bucket_that_all_nodes_see(bucket):
    place = Place(f"{bucket}/runs/mine", "pretrain upload_dir", written=True)
    assert not found(place, Prober(), Prober())
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    left = [each["Key"] for each in client.list_objects_v2(Bucket="doctor").get("Contents", [])]
    assert not [key for key in left if not key.endswith("/")]


def test_a_bucket_that_is_not_there(bucket):
    (finding,) = found(Place("s3://elsewhere/runs", "--paths", written=True), Prober())
    assert finding.severity == "error"
    assert "cannot be written to from here" in finding.what


def test_secrets_of_an_address_are_not_shown(bucket):
    place = Place("s3://me:hush@elsewhere/runs?secret_key=hush", "--paths", written=True)
    (finding,) = found(place, Prober(), timeout=5.0)
    assert "hush" not in finding.what


def test_disks_of_one_machine_can_be_told_apart_by_room(tmp_path):
    (touched,) = [places.touch(Probe(str(tmp_path), "none", ""), "1")]
    assert touched.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
