"""Images in the archive of a benchmark: what a stranger may have put there."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hand_scored import image

from slq.benchmarks import images
from slq.benchmarks.images import ImageFolders

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = image(tmp_path / "a.jpg", 0).read_bytes()
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.jpg", content)
        archive.writestr("../../escape.jpg", content)
        archive.writestr("bomb.jpg", bytes(3_000_000))
        archive.writestr("torn.jpg", content * 3)
    return tmp_path


def test_a_bomb_a_torn_member_and_a_way_out_are_faults_of_their_own(folder, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1_000_000)
    data = bytearray((folder / "images.zip").read_bytes())
    with zipfile.ZipFile(folder / "images.zip") as archive:
        start = archive.getinfo("torn.jpg").header_offset + 60
    data[start : start + 40] = bytes(40)
    (folder / "images.zip").write_bytes(data)
    names = {name: [name] for name in ("good.jpg", "../../escape.jpg", "bomb.jpg", "torn.jpg", "missing.jpg", "/etc/hostname", "x" * 10**6)}
    found = ImageFolders(folder, ("", "images"), "images.zip").locate(names)
    assert found.found() == ["good.jpg"] and found.paths["good.jpg"].is_file()
    reasons = {"../../escape.jpg": "outside of", "bomb.jpg": "3,000,000 bytes", "torn.jpg": "cannot be read", "missing.jpg": "is not in"}
    for name, reason in {**reasons, "/etc/hostname": "outside of", "x" * 10**6: "is not in"}.items():
        assert reason in found.faults[name] and len(found.faults[name]) < 700
        assert not found.paths[name].exists()
    assert not (folder.parent.parent / "escape.jpg").exists()
