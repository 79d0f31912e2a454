"""Output folders: what is replaced, what is refused, and what a crash leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slq.errors import OutputError, OutputExistsError
from slq.io.files import siblings
from slq.io.outputs import MANIFEST, OutputFolder, check_output_file, check_reads

RUN = ("log.jsonl", "checkpoint-*")


def write(path: Path, content: str = "old", overwrite: bool = False, command: str = "train") -> None:
    """What a command does that is only useful when it is whole."""
    with OutputFolder.create(path, command, overwrite=overwrite) as folder:
        (folder.path / "images").mkdir()
        (folder.path / "images" / "0.png").write_text(content)
        (folder.path / "captions.jsonl").write_text(content)


def content_of(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file() and file.name != MANIFEST}


def whole(content: str) -> dict[str, str]:
    return {"images/0.png": content, "captions.jsonl": content}


@pytest.fixture
def out(tmp_path) -> Path:
    write(tmp_path / "out")
    return tmp_path / "out"


def test_a_folder_is_written_whole_and_leaves_nothing_beside_it(out, tmp_path):
    assert content_of(out) == whole("old") and list(tmp_path.iterdir()) == [out]


def test_what_is_there_is_replaced_only_when_asked(out):
    with pytest.raises(OutputExistsError, match="exists already: choose another folder, or pass --overwrite"):
        write(out, "new")
    assert content_of(out) == whole("old")
    write(out, "new", overwrite=True)
    assert content_of(out) == whole("new")


def test_photos_with_captions_are_not_taken_for_ours(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_text("a photo")
    (photos / "captions.jsonl").write_text("words")
    with pytest.raises(OutputExistsError, match=r"has no \.slq\.json, in which slq lists what it wrote \(earlier versions did not\)"):
        write(photos, overwrite=True)
    assert content_of(photos) == {"cat.jpg": "a photo", "captions.jsonl": "words"}


@pytest.mark.parametrize("name", ["cat.jpg", "images/cat.jpg", "mine/cat.jpg", ".slq.json.bak", ".hidden"])
def test_a_file_of_ones_own_survives(out, name):
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=f"holds {name}, which slq did not write there: move what you want to keep"):
        write(out, overwrite=True)
    assert content_of(out) == {**whole("old"), name: "mine"}


def test_several_files_of_ones_own_are_counted(out):
    for name in "abc":
        (out / name).touch()
    with pytest.raises(OutputExistsError, match="holds a and 2 more, which"):
        OutputFolder.check(out, "train", overwrite=True)


@pytest.mark.parametrize("edited", ["else", "a longer text"])
def test_a_file_that_was_edited_survives(out, edited):
    (out / "captions.jsonl").write_text(edited)
    with pytest.raises(OutputExistsError, match=r"holds captions\.jsonl, which has changed since slq wrote it"):
        write(out, overwrite=True)
    assert (out / "captions.jsonl").read_text() == edited


def test_links_are_of_ones_own_and_lead_nowhere(out, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    (out / "more").symlink_to(photos)
    with pytest.raises(OutputExistsError, match="holds more, which slq did not write there"):
        write(out, overwrite=True)
    (out / "more").unlink()
    (out / "captions.jsonl").unlink()
    (out / "captions.jsonl").symlink_to(photos / "a.jpg")
    with pytest.raises(OutputExistsError, match=r"holds captions\.jsonl"):
        write(out, overwrite=True)
    assert (photos / "a.jpg").exists()


def test_a_folder_that_is_a_link_stays_one(out, tmp_path):
    (tmp_path / "link").symlink_to(out)
    write(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink() and content_of(out) == whole("new")


def test_what_a_file_manager_leaves_is_nobodys(out):
    (out / "images" / ".DS_Store").touch()
    write(out, "new", overwrite=True)
    assert content_of(out) == whole("new")


def test_files_that_were_removed_or_copied_do_not_matter(out, tmp_path):
    (out / "captions.jsonl").unlink()
    os.utime(out / "images" / "0.png", (1, 1))
    write(out, "new", overwrite=True)
    assert content_of(out) == whole("new")


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99, "command": "train", "files": {}}', '{"format": 1}'])
def test_a_list_that_cannot_be_read_is_no_permission(out, content):
    (out / MANIFEST).write_text(content)
    with pytest.raises(OutputExistsError, match=r"has a \.slq\.json that this version of slq cannot read"):
        write(out, overwrite=True)
    assert content_of(out) == whole("old")


def test_a_list_cannot_lead_outside(out, tmp_path):
    """Only what is found in the folder is ever removed, whatever the list says."""
    (tmp_path / "cat.jpg").write_text("mine")
    listed = (out / MANIFEST).read_text().replace("captions.jsonl", "../cat.jpg")
    (out / MANIFEST).write_text(listed)
    with pytest.raises(OutputExistsError, match=r"holds captions\.jsonl"):
        write(out, overwrite=True)
    (out / "captions.jsonl").unlink()
    write(out, "new", overwrite=True)
    assert (tmp_path / "cat.jpg").read_text() == "mine"


def test_what_is_read_is_never_written_over(out):
    with pytest.raises(OutputError, match=r"holds \S+, which is read"):
        OutputFolder.check(out, "train", overwrite=True, keep=[out / "images"])


def test_what_is_read_may_be_a_file_a_folder_or_no_path_at_all(out, tmp_path):
    check_reads(tmp_path / "new", [out, None, "owner/name"])
    for read in (out, out / "captions.jsonl", tmp_path / "out" / ".." / "out"):
        with pytest.raises(OutputError, match=r"(is|holds) \S+, which is read: choose another output"):
            check_reads(out, [None, "owner/name", read])
    with pytest.raises(OutputError, match=r"captions\.jsonl lies in \S+out, which is read"):
        check_output_file(out / "captions.jsonl", [out], overwrite=True)
    (tmp_path / "link").symlink_to(out / "captions.jsonl")
    with pytest.raises(OutputError, match=r"is \S+captions\.jsonl, which is read"):
        check_output_file(tmp_path / "link", [out / "captions.jsonl"], overwrite=True)


def test_a_file_is_replaced_only_when_asked(out, tmp_path):
    file = out / "captions.jsonl"
    with pytest.raises(OutputExistsError, match="exists already: choose another file, or pass --overwrite"):
        check_output_file(file)
    check_output_file(file, overwrite=True)
    check_output_file(tmp_path / "new.json")
    check_output_file(Path("/dev/null"))
    with pytest.raises(OutputError, match="is a folder, and a file is to be written"):
        check_output_file(out, overwrite=True)
    with pytest.raises(OutputError, match="there is no folder"):
        check_output_file(tmp_path / "nowhere" / "new.json")


def test_what_another_command_wrote_is_not_replaced(out):
    with pytest.raises(OutputExistsError, match="out was written by slq train: move what you want to keep"):
        write(out, "new", overwrite=True, command="embed")
    assert content_of(out) == whole("old")


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="is not a folder"):
        write(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match=r"^Cannot write \S+below: Not a directory\.$"):
        write(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs a mounted disk")
def test_where_a_disk_is_mounted_is_said(monkeypatch, tmp_path):
    with pytest.raises(OutputExistsError, match=r"/proc has no \.slq\.json"):
        OutputFolder.check(Path("/proc"), "train", overwrite=True)


def test_an_error_removes_what_was_written_and_nothing_else(out, tmp_path):
    for path in (out, tmp_path / "other"):
        with pytest.raises(ValueError, match="stop"), OutputFolder.create(path, "train", overwrite=True) as folder:
            (folder.path / "half").touch()
            raise ValueError("stop")
    assert content_of(out) == whole("old") and list(tmp_path.iterdir()) == [out]


def test_what_someone_adds_while_the_work_goes_on_is_kept(out, tmp_path):
    refused = pytest.raises(OutputExistsError, match=r"holds cat\.jpg, .*since this run began: the new output is in \S+new-")
    with refused, OutputFolder.create(out, "train", overwrite=True) as folder:
        (folder.path / "vectors").write_text("new")
        (out / "cat.jpg").write_text("mine")
    assert content_of(out) == {**whole("old"), "cat.jpg": "mine"}
    assert content_of(tmp_path / f"out.new-{os.getpid()}") == {"vectors": "new"}


# Long runs


def test_a_long_run_works_in_the_folder_and_is_resumed_there(tmp_path):
    out = tmp_path / "run"
    folder = OutputFolder.create(out, "train", writes=RUN)
    (folder.path / "log.jsonl").write_text("1")
    assert folder.path == out and (out / "log.jsonl").exists()
    with OutputFolder.resume(out, "train", RUN) as folder:
        (folder.path / "log.jsonl").write_text("12")
        (folder.path / "checkpoint-2").mkdir()
        (folder.path / "checkpoint-2" / "weights").write_text("2")
    OutputFolder.check(out, "train", overwrite=True)
    (out / "log.jsonl").write_text("edited")
    with pytest.raises(OutputExistsError, match=r"log\.jsonl, which has changed"):
        OutputFolder.check(out, "train", overwrite=True)


def test_a_run_that_was_stopped_may_be_replaced_but_not_what_was_added_to_it(tmp_path):
    out = tmp_path / "run"
    OutputFolder.create(out, "train", writes=RUN)
    (out / "checkpoint-1").mkdir()
    (out / "checkpoint-1" / "weights").touch()
    OutputFolder.check(out, "train", overwrite=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds notes\.txt"):
        OutputFolder.check(out, "train", overwrite=True)


def test_what_is_added_to_a_run_while_it_works_does_not_become_its_own(tmp_path):
    with OutputFolder.create(tmp_path / "run", "train", writes=RUN) as folder:
        (folder.path / "log.jsonl").touch()
        (folder.path / "notes.txt").touch()
    with pytest.raises(OutputExistsError, match=r"holds notes\.txt"):
        OutputFolder.check(tmp_path / "run", "train", overwrite=True)


def test_a_new_run_lets_go_of_the_old_one_when_it_has_something_to_resume(out, tmp_path):
    folder = OutputFolder.create(out, "train", overwrite=True, writes=RUN)
    (folder.path / "checkpoint-1").mkdir()
    (aside,) = siblings(out, "replaced")
    assert content_of(aside) == whole("old") and folder.path == out
    folder.keep()
    folder.keep()
    assert list(tmp_path.iterdir()) == [out]
    (folder.path / "log.jsonl").touch()
    folder.finish()
    assert [path.name for path in sorted(out.iterdir())] == [MANIFEST, "checkpoint-1", "log.jsonl"]


def test_a_run_that_ends_with_nothing_to_resume_gives_the_old_one_back(out, tmp_path):
    with pytest.raises(ValueError, match="stop"), OutputFolder.create(out, "train", overwrite=True, writes=RUN) as folder:
        (folder.path / "log.jsonl").touch()
        raise ValueError("stop")
    assert content_of(out) == whole("old") and list(tmp_path.iterdir()) == [out]
    folder = OutputFolder.create(out, "train", overwrite=True, writes=RUN)  # and without a context, when it is looked at again
    (folder.path / "log.jsonl").touch()
    OutputFolder.check(out, "train", overwrite=True)
    assert content_of(out) == whole("old") and list(tmp_path.iterdir()) == [out]


def test_a_run_of_another_process_is_not_disturbed(out):
    import threading

    worker = threading.Thread(target=OutputFolder.create, args=(out, "train"), kwargs={"overwrite": True, "writes": RUN})
    worker.start()
    worker.join()
    OutputFolder.check(out, "train", overwrite=True)
    assert len(siblings(out, "replaced")) == 1 and not content_of(out)


def test_only_a_run_of_the_same_command_is_resumed(out, tmp_path):
    write(tmp_path / "data", command="sample-data")
    for path, reason in ((tmp_path / "data", "sample-data"), (tmp_path / "missing", "is not a folder"), (tmp_path, r"has no \.slq\.json")):
        with pytest.raises(OutputExistsError, match=rf"{reason}.*no run of slq train can be resumed there"):
            OutputFolder.resume(path, "train", RUN)


# Crashes

RUN_SCRIPT = """
import sys
from pathlib import Path
from slq.io.outputs import OutputFolder
folder = OutputFolder.create(Path(sys.argv[1]), "train", overwrite=True, writes=("log.jsonl",))
(folder.path / "log.jsonl").write_text("new")
folder.keep()
folder.finish()
"""
SCRIPT = """
import sys
from pathlib import Path
from slq.io.outputs import OutputFolder
with OutputFolder.create(Path(sys.argv[1]), "train", overwrite=True) as folder:
    (folder.path / "captions.jsonl").write_text("new")
"""


def crash(at: str, out: Path, script: str = SCRIPT) -> None:
    result = subprocess.run(
        [sys.executable, "-c", script, str(out)], env={**os.environ, "SLQ_CRASH_AT": at}, capture_output=True, timeout=60
    )
    assert result.returncode == -9, result.stderr.decode()


@pytest.mark.parametrize("at", ["file.written", "file.written:2", "folder.written", "folder.moved"])
def test_a_crash_leaves_the_old_folder_whole(at, out, tmp_path):
    crash(at, out)
    OutputFolder.check(out, "train", overwrite=True)  # puts it back where a crash came between the two steps
    assert content_of(out) == whole("old")
    write(out, "newer", overwrite=True)
    assert content_of(out) == whole("newer") and list(tmp_path.iterdir()) == [out], "what the crash left is gone"


@pytest.mark.parametrize(
    ("at", "left"), [("folder.moved", whole("old")), ("file.replaced", whole("old")), ("folder.kept", {"log.jsonl": "new"})]
)
def test_a_crash_of_a_long_run_leaves_the_old_folder_or_one_to_resume(at, left, out, tmp_path):
    crash(at, out, RUN_SCRIPT)
    OutputFolder.check(out, "train", overwrite=True)
    assert content_of(out) == left and list(tmp_path.iterdir()) == [out]


def test_a_crash_after_the_replacement_leaves_the_new_folder(out, tmp_path):
    crash("folder.published", out)
    assert content_of(out) == {"captions.jsonl": "new"} and len(siblings(out, "replaced")) == 1
    write(out, "newer", overwrite=True)
    assert content_of(out) == whole("newer") and list(tmp_path.iterdir()) == [out]


def test_a_file_added_to_a_folder_that_a_crash_left_is_kept_in_sight(out, tmp_path):
    crash("folder.published", out)
    (aside,) = siblings(out, "replaced")
    (aside / "images" / "cat.jpg").write_text("mine")
    with pytest.warns(UserWarning, match="what slq did not write is kept in"):
        OutputFolder.check(out, "train", overwrite=True)
    assert content_of(tmp_path / f"out.kept-{os.getpid()}") == {"images/cat.jpg": "mine"}
