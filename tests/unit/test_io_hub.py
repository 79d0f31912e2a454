"""The hub: fetched from and uploaded to a server of our own that speaks its interface, by the hub's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn, commit_of

FILES = {"adapter.safetensors": b"weights", "slq_adapter.json": b"{}", "README.md": b"words"}

# The client reads its settings from the environment when it is imported. It would send the server's address into the world as a token.
SCRIPT = """
import json, sys
from pathlib import Path
from slq.errors import AdapterError, SlqError
from slq.io import hub
name, arguments, options = json.loads(sys.argv[1])
if options.get("error"):
    options["error"] = AdapterError
try:
    print(json.dumps(["returned", str(getattr(hub, name)(*arguments, **options))]))
except SlqError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def stand_in() -> Iterator[HubStandIn]:
    with HubStandIn() as hub:
        hub.repos["models", "owner/adapter", "main"] = dict(FILES)
        hub.repos["models", "owner/adapter", "v1"] = {"slq_adapter.json": b"{1}"}
        hub.repos["datasets", "owner/data", "main"] = {"test.parquet": b"rows", "data/more.parquet": b"more"}
        yield hub


@pytest.fixture
def call(tmp_path, stand_in):
    def call(name: str, *arguments: object, offline: bool = False, url: str | None = None, **options: object) -> tuple[str, str]:
        environment = {
            **os.environ,
            "HF_ENDPOINT": url or stand_in.url,
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": "hf_of_no_one",
            "no_proxy": "127.0.0.1",
        }
        given = json.dumps([name, arguments, options], default=str)
        result = subprocess.run([sys.executable, "-c", SCRIPT, given], env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return tuple(json.loads(result.stdout.splitlines()[-1]))

    return call


@pytest.mark.process
def test_a_repository_is_fetched_and_found_again_without_the_hub(call, stand_in):
    kind, folder = call("snapshot", "owner/adapter", repo_type="model")
    assert kind == "returned" and {file.name: file.read_bytes() for file in Path(folder).iterdir()} == FILES
    assert Path(folder).name == commit_of(FILES)
    assert call("snapshot", "owner/adapter", repo_type="model", offline=True) == (kind, folder)


@pytest.mark.process
def test_only_the_files_that_are_needed_are_fetched(call, stand_in):
    _, folder = call("snapshot", "owner/adapter", None, ["adapter.safetensors", "*.json"], repo_type="model")
    assert sorted(file.name for file in Path(folder).iterdir()) == ["adapter.safetensors", "slq_adapter.json"]
    assert not [request for request in stand_in.requests if "README" in request]


@pytest.mark.process
def test_a_revision_and_a_data_set(call):
    assert (Path(call("snapshot", "owner/adapter", "v1", repo_type="model")[1]) / "slq_adapter.json").read_bytes() == b"{1}"
    assert (Path(call("snapshot", "owner/data")[1]) / "data" / "more.parquet").read_bytes() == b"more"


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        (["owner/data", "v9"], {}, "DataError", "the data set 'owner/data' at 'v9' does not exist on the hub; give a commit, tag or"),
        (
            ["owner/none"],
            {},
            "DataError",
            "the data set 'owner/none' does not exist on the hub, or is private; correct its name",
        ),
        (["owner/data"], {"offline": True}, "DataError", "the data set 'owner/data' is not on this machine, and HF_HUB_OFFLINE is set"),
        (["owner/data"], {"url": "http://127.0.0.1:9"}, "DataError", "is not on this machine, and the hub cannot be reached; connect"),
        (
            ["no such/name"],
            {"repo_type": "model"},
            "DataError",
            "'no such/name' is neither a folder nor a name of the hub",
        ),
        (
            ["owner/none"],
            {"repo_type": "model", "error": "adapter"},
            "AdapterError",
            "the repository 'owner/none' does not exist",
        ),
    ],
    ids=["revision", "repository", "offline", "unreachable", "name", "another error"],
)
def test_what_cannot_be_fetched_is_one_sentence(call, arguments, options, kind, message):
    raised, told = call("snapshot", *arguments, **options)
    assert raised == kind and message in told and "\n" not in told


@pytest.mark.process
def test_a_folder_is_uploaded_and_fetched_again(call, stand_in, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "slq_adapter.json").write_text("{2}")
    kind, address = call("upload", tmp_path / "mine", "owner/new")
    files = stand_in.repos["models", "owner/new", "main"]
    assert kind == "returned" and files == {"slq_adapter.json": b"{2}"} and address.endswith(f"/owner/new/commit/{commit_of(files)}")
    assert (Path(call("snapshot", "owner/new", repo_type="model")[1]) / "slq_adapter.json").read_text() == "{2}"


@pytest.mark.process
def test_a_folder_is_uploaded_to_a_branch_of_a_repository_that_is_there(call, stand_in, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "slq_adapter.json").write_text("{2}")
    assert call("upload", tmp_path / "mine", "owner/adapter", "v2")[0] == "returned"
    assert stand_in.repos["models", "owner/adapter", "v2"] == {**FILES, "slq_adapter.json": b"{2}"}
    assert stand_in.repos["models", "owner/adapter", "main"] == FILES


@pytest.mark.process
def test_what_cannot_be_uploaded_is_one_sentence(call, stand_in, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.json").touch()
    stand_in.locked = True
    for options in ({}, {"url": "http://127.0.0.1:9"}):
        kind, told = call("upload", tmp_path / "mine", "owner/new", **options)
        assert kind == "OutputError" and told.startswith("Cannot upload to 'owner/new' (") and "hf auth login" in told and "\n" not in told
