"""Walking folders: links, names that are not UTF-8, what is no file, folders that may not be read, packed files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pmlm_core.corpus.copies import without_copies
from pmlm_core.corpus.formats import InputFormat
from pmlm_core.corpus.sources import LeftOut, Source, list_sources
from pmlm_core.errors import DataError, UnknownFormError

AUTO = InputFormat()


def listed(*inputs: Path | str, fmt: InputFormat = AUTO) -> tuple[list[str], list[tuple[str, str]]]:
    """(names taken, names and reasons left out)."""
    skipped: list[LeftOut] = []
    sources = list_sources([str(each) for each in inputs], fmt, skipped.append)
    return [Path(s.uri).name for s in sources], sorted((Path(each.uri).name, each.reason) for each in skipped)


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_links_that_lead_back_are_not_followed_again_and_again(tmp_path):
    put(tmp_path / "a.jsonl")
    (tmp_path / "loop").symlink_to(".")
    for name in ("up", "up_again"):
        put(tmp_path / "deep" / "b.jsonl")
        (tmp_path / "deep" / name).symlink_to("..")
    assert listed(tmp_path) == (["a.jsonl", "b.jsonl"], [])
    assert listed(tmp_path / "*.jsonl") == (["a.jsonl"], [])
    assert listed(tmp_path / "**" / "*.jsonl") == (["a.jsonl", "b.jsonl"], [])


def test_a_file_and_a_link_to_it_are_one_and_the_link_is_told_of(tmp_path):
    put(tmp_path / "z.jsonl")
    (tmp_path / "latest.jsonl").symlink_to("z.jsonl")
    assert listed(tmp_path) == (["z.jsonl"], [("latest.jsonl", "duplicate")])
    assert listed(tmp_path / "latest.jsonl") == (["latest.jsonl"], [])


def test_a_folder_that_only_a_link_matches_is_entered(tmp_path):
    put(tmp_path / "v3" / "a.jsonl")
    (tmp_path / "latest").symlink_to("v3")
    assert listed(tmp_path / "lat*" / "*.jsonl") == (["a.jsonl"], [])


def test_a_name_that_is_not_utf8_is_left_out_alone(tmp_path):
    put(tmp_path / "good.jsonl")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jsonl", "wb") as file:
        file.write(b"x")
    assert listed(tmp_path) == (["good.jsonl"], [(r"caf\xe9.jsonl", "bad_name")])
    with pytest.raises(DataError, match=r"caf\\xe9\.jsonl': the name is not UTF-8"):
        listed(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))


def test_what_is_left_out_is_said_markers_apart(tmp_path):
    put(tmp_path / "a.jsonl")
    for marker in ("_SUCCESS", ".a.jsonl.crc", ".DS_Store"):
        put(tmp_path / marker)
    put(tmp_path / "_part.jsonl")
    put(tmp_path / "_books" / "b.jsonl.zst")
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "broken.jsonl").symlink_to("nowhere")
    assert listed(tmp_path) == (
        ["a.jsonl"],
        [
            ("_part.jsonl", "hidden"),
            ("b.jsonl.zst", "hidden"),
            ("broken.jsonl", "no_file"),
            ("pipe.jsonl", "no_file"),
        ],
    )


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, who can become another user")
def test_folders_that_no_match_can_lie_in_need_not_be_readable(tmp_path):
    put(tmp_path / "a.jsonl")
    (tmp_path / "lost+found").mkdir(mode=0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp") and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    program = (
        "import os, sys\n"
        "from pmlm_core.corpus.formats import InputFormat\n"
        "from pmlm_core.corpus.sources import list_sources\n"
        "os.setuid(65534)\n"
        "print(len(list_sources([sys.argv[1]], InputFormat())))"
    )

    def count(text: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program, str(text)], capture_output=True, text=True)

    found = count(tmp_path / "*.jsonl")
    assert found.stdout.strip() == "1", found.stderr
    assert "lost+found" in count(tmp_path / "**" / "*.jsonl").stderr


def test_a_pattern_that_is_none(tmp_path):
    put(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="is no pattern"):
        listed(tmp_path / "[z-a]*.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl.xz", "b.txt.bz2", "c.tar.gz", "d.txt.zip"])
def test_packed_files_that_are_not_read_are_never_taken_for_text(tmp_path, name):
    put(tmp_path / name)
    for fmt in (AUTO, InputFormat("text_lines")):
        with pytest.raises(UnknownFormError, match=r"unpack it, or store it as \.gz or \.zst"):
            listed(tmp_path / name, fmt=fmt)
        with pytest.raises(UnknownFormError, match="unpack it"):
            listed(tmp_path, fmt=fmt)
    put(tmp_path / "good.jsonl.zstd")
    assert listed(tmp_path) == (["good.jsonl.zstd"], [(name, "unknown_form")])


def test_copies_are_left_out_and_files_that_only_look_alike_are_not(tmp_path):
    long = bytes(range(256)) * 1000
    for name, data in {
        "a.jsonl": long,
        "b/a.jsonl": long,
        "c.jsonl": long[:100_000] + b"!" + long[100_001:],
        "d.jsonl": long[:-1],
        "e.tokens": long,
        "empty.jsonl": b"",
        "empty2.jsonl": b"",
    }.items():
        put(tmp_path / name, data)
    skipped: list[LeftOut] = []
    kept: list[Source] = without_copies(list_sources([str(tmp_path)], AUTO), skipped.append)
    names = [str(Path(each.uri).relative_to(tmp_path)) for each in kept]
    assert names == ["a.jsonl", "c.jsonl", "d.jsonl", "e.tokens", "empty.jsonl", "empty2.jsonl"]
    assert [(each.reason, each.detail) for each in skipped] == [
        ("duplicate", f"the same bytes as {tmp_path}/a.jsonl; left out")
    ]
    assert skipped[0].uri == f"{tmp_path}/b/a.jsonl"
