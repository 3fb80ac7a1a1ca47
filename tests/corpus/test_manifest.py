import dataclasses
import json
from pathlib import Path

import pytest
from oracles.made_blocks import SIZES, build

from pmlm_core.corpus.manifest import Manifest
from pmlm_core.errors import DataError


def test_manifest_survives_json_and_its_fingerprint_follows_the_content(tmp_path: Path) -> None:
    build(tmp_path)
    manifest = Manifest.load(str(tmp_path))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.rows("train") == sum(SIZES)
    entries = manifest.splits["train"]
    other = dataclasses.replace(manifest, splits={"train": entries[::-1], "validation": []}, fingerprint="")
    assert other.fingerprint != manifest.fingerprint
    assert dataclasses.replace(manifest, code_version="x", fingerprint="").fingerprint == manifest.fingerprint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not valid JSON"),
        ("[]", "format version None"),
        ('{"format_version": 99}', "version 99"),
        ('{"format_version": 1}', "lacks a field"),
    ],
)
def test_manifests_that_cannot_be_used(text: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        Manifest.from_json(text)


def test_a_manifest_of_before_the_parts_is_read_and_has_the_same_fingerprint(tmp_path: Path) -> None:
    build(tmp_path)
    manifest = Manifest.load(str(tmp_path))
    raw = json.loads(manifest.to_json())
    for entry in raw["splits"]["train"]:
        del entry["part_bytes"], entry["part_sha256"]
    old = Manifest.from_json(json.dumps(raw | {"fingerprint": ""}))
    assert old.fingerprint == manifest.fingerprint
    assert [entry.part_bytes for entry in old.splits["train"]] == [[], [], []]
