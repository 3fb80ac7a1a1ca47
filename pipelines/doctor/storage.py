"""Whether every place is seen from every node, is one storage and not equal names on several disks, and has room."""

from pipelines.doctor.demands import Job
from pipelines.doctor.examined import Examined
from pipelines.doctor.finding import Check, Finding, error, named, warning
from pipelines.doctor.places import Seen, Touched
from pipelines.doctor.secrets import cleaned
from pipelines.doctor.unresolved import remedy
from pipelines.quantities import size_text
from pipelines.tracking.redact import redact
from pmlm_core import storage

_NO_RENAME = ("s3fs", "gcsfuse", "goofys", "mountpoint-s3", "rclone", "blobfuse", "blobfuse2")
_SHARE = (
    "Mount one shared file system (such as NFS) under this path on every node, or name an s3:// or gs:// address where "
    "the option takes one."
)


def check(examined: list[Examined], jobs: tuple[Job, ...], made: tuple[str, ...] = ()) -> Check:
    """Findings of all places; `made`: paths below which a stage of the recipe still has to write."""
    findings: list[Finding] = []
    for each in examined:
        what = f"{redact(each.place.path)} ({each.place.option})"
        verb = "written to" if each.place.written else "read"
        if each.failure is not None:
            findings.append(
                error(
                    f"{what} cannot be {verb} from here: {cleaned(each.failure, each.place.path)}",
                    remedy(each.failure, "Name another place, or mend its rights, its mount or its credentials."),
                    "this command's machine",
                )
            )
        elif each.place.written:
            findings += [*_written(each, what), *_room(each, jobs, what)]
        else:
            findings += _read(each, what, made)
    seen_by = max((len(each.touched or each.seen) for each in examined), default=0)
    summary = f"{len(examined)} looked at from {seen_by} node{'s' * (seen_by != 1)}" if examined else "none given"
    served = [label for each in examined if each.place.through_driver for label in _unseen(each)]
    if served:
        summary += f"; to {named(dict.fromkeys(served))}, which do not see all, this command's machine sends files"
    return Check("paths", summary, tuple(findings))


def _unseen(each: Examined) -> list[str]:
    """Nodes that have nothing there, or a disk of their own."""
    if each.place.written:
        return [label for label, answer in each.touched.items() if answer.value and not answer.value.read]
    there = (each.here or Seen("missing")).kind != "missing"
    return [label for label, answer in each.seen.items() if there and answer.value and answer.value.kind == "missing"]


def _written(each: Examined, what: str) -> list[Finding]:
    findings = []
    values: dict[str, Touched] = {}
    for label, answer in each.touched.items():
        if answer.failure is not None:
            findings.append(
                error(
                    f"{what}: {cleaned(answer.failure, each.place.path)}", "See to the mount there; it may hang.", label
                )
            )
            continue
        if each.place.through_driver and label in _unseen(each):
            continue
        values[label] = answer.value
        if not answer.value.read:
            findings.append(
                error(
                    f"{what} is not what this command sees: {cleaned(answer.value.failure or '', each.place.path)}",
                    _SHARE,
                    label,
                )
            )
        elif not answer.value.wrote:
            failed = cleaned(answer.value.failure or "", each.place.path)
            findings.append(error(f"{what} cannot be written to: {failed}", "Give the node the right to.", label))
        elif not each.answered.get(label):
            findings.append(error(f"{what}: what the node writes there is not seen here", _SHARE, label))
    if not each.place.renames:
        return findings
    if each.rename_failure is not None:
        findings.append(
            error(
                f"{what}: folders cannot be renamed there ({each.rename_failure}), as checkpoints are",
                "Write to a file system that can, with --upload_dir for copies in an object store.",
            )
        )
    mounts = {label: touched.file_system for label, touched in values.items()}
    if any(kind.rpartition(".")[2] in _NO_RENAME for kind in mounts.values()):
        findings.append(
            error(
                f"{what} is an object store mounted as a folder, where a rename is a copy that may stop halfway",
                "Write to a true file system, with --upload_dir for copies in the object store.",
                named(mounts),
            )
        )
    unlocked = [label for label, touched in values.items() if touched.lock in ("free", "none")]
    if unlocked:
        findings.append(
            warning(
                f"{what}: locks do not reach from node to node",
                "Start each run once only: nothing would stop a second command from writing to the same run.",
                named(unlocked),
            )
        )
    return findings


def _room(each: Examined, jobs: tuple[Job, ...], what: str) -> list[Finding]:
    free = [answer.value.free for answer in each.touched.values() if answer.value and answer.value.free is not None]
    needed = sum(
        job.weight.disk
        for job in jobs
        if job.weight and job.output_dir and storage.absolute(job.output_dir) == each.place.path
    )
    if free and min(free) < needed:
        text = f"{what} has {size_text(min(free))} free, and the checkpoints of the run take up to {size_text(needed)}"
        return [error(text, "Make room, name another place, or lower keep_checkpoints.")]
    if free and min(free) < 10**9:
        return [warning(f"{what} has only {size_text(min(free))} free", "Make room, or name another place.")]
    return []


def _read(each: Examined, what: str, made: tuple[str, ...]) -> list[Finding]:
    here = each.here or Seen("missing")
    if here.failure is not None:
        way_out = remedy(here.failure, "Mend its address, its rights or the credentials here.")
        return [
            error(f"{what} cannot be read: {cleaned(here.failure, each.place.path)}", way_out, "this command's machine")
        ]
    if here.kind == "missing":
        if any((each.place.path + "/").startswith(path.rstrip("/") + "/") for path in made):
            return []
        worse = error if each.place.given else warning
        return [worse(f"{what} does not exist", "Make it first, or name the one that is meant on the command line.")]
    findings = [
        error(f"{what}: {cleaned(answer.failure, each.place.path)}", "See to the mount there; it may hang.", label)
        for label, answer in each.seen.items()
        if answer.failure is not None
    ]
    values = {label: answer.value for label, answer in each.seen.items() if answer.failure is None}
    for label, seen in values.items():
        if each.place.through_driver and seen.failure is None and label in _unseen(each):
            continue
        if seen != here:
            why = seen.failure or ("it is not there" if seen.kind == "missing" else "files or their sizes differ")
            findings.append(
                error(f"{what} is not what this command sees: {cleaned(why, each.place.path)}", _SHARE, label)
            )
    return findings
