"""Whether blocks on a disk are, byte for byte, what preprocessing wrote: bits that flip there leave no other trace."""

from collections.abc import Iterable

from pipelines.console import counted, say
from pipelines.doctor.demands import Place
from pipelines.doctor.finding import Check, error, warning
from pipelines.quantities import size_text
from pmlm_core import storage

_OPTIONS = ("pretrain data_dir", "preprocess output_dir", "--paths")


def check(places: Iterable[Place]) -> Check:
    """Read every shard of all local blocks among these places and compare its digest with the manifest's.

    Raises:
        DataError: a manifest cannot be read.
    """
    from pmlm_core.corpus.blocks import MANIFEST, BlockSet, Manifest

    named_here = [place.path for place in places if place.option in _OPTIONS and not storage.is_remote(place.path)]
    folders = [path for path in named_here if storage.exists(storage.join(path, MANIFEST))]
    if not folders:
        what = "no blocks on a disk are named here, so none were read"
        return Check(
            "blocks",
            "none",
            (warning(what, "Name them: `pmlm doctor --verify_blocks --paths BLOCKS`."),),
        )
    findings, shards = [], 0
    for folder in folders:
        manifest = Manifest.load(folder)
        entries = [entry for split in manifest.splits.values() for entry in split]
        say(f"reading {counted(len(entries), 'shard')} in {folder}, {size_text(sum(entry.bytes for entry in entries))}")
        damaged = [path for split in manifest.splits for path in BlockSet(folder, manifest, split).damaged()]
        if damaged:
            what = f"{len(damaged)} of {counted(len(entries), 'shard')} in {folder} differ from what was written there"
            findings.append(
                error(
                    f"{what}: {', '.join(damaged)}",
                    "Delete them and give the same `pmlm preprocess` again: it makes what is missing, of the same "
                    "bytes, and a run on these blocks goes on.",
                )
            )
        shards += len(entries)
    return Check("blocks", f"{counted(shards, 'shard')} read and compared with their digests", tuple(findings))
