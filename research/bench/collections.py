"""A collection that follows a folder of sample images: what is encoded after changes, and what kills at random instants leave.

    python -m research.bench.collections --images 20000 --kills 100

First the folder is indexed, then files are added, changed, deleted and moved, and it is indexed again: the counts stand beside what was
done. Then each round changes a few files and kills `slq index`, `slq collection optimize` or `slq collection delete` (of a copy). What the
journal had acknowledged must be in the store; in the end the rows must be those of the files, with the vectors of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from research.bench.kills import attempt
from research.bench.measuring import console, write_result
from slq.adapters.latents import LatentQueries
from slq.cli.app import main as command_line
from slq.encoders import LatentEncoder
from slq.index.collection import Collection
from slq.miniature.export import write_sample_data
from slq.models import load_model
from slq.types import Item

SEED = 0
KINDS = ("index", "index", "index", "optimize", "delete")  # three rounds of five index


class Photos:
    """A folder of images and others to take new ones from."""

    def __init__(self, folder: Path, images: list[Path], draw: random.Random) -> None:
        self.folder, self.draw, self.unused = folder, draw, images
        folder.mkdir()

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*.png"))

    def add(self, count: int) -> None:
        for _ in range(count):
            image = self.unused.pop()
            shutil.copyfile(image, self.folder / f"{image.parent.parent.name}-{image.name}")

    def change(self, count: int) -> None:
        for file in self.draw.sample(self.files, count):
            shutil.copyfile(self.unused.pop(), file)

    def delete(self, count: int) -> None:
        for file in self.draw.sample(self.files, count):
            file.unlink()

    def move(self, count: int) -> None:
        for file in self.draw.sample(self.files, count):
            target = self.folder / f"folder {self.draw.randrange(10)}"
            target.mkdir(exist_ok=True)
            file.rename(target / f"{self.draw.randrange(10**9)}.png")

    def contents(self) -> dict[str, str]:
        return {f"photos/{file.relative_to(self.folder).as_posix()}": Item(image=file).content_hash for file in self.files}


def slq(*arguments: object) -> dict[str, Any]:
    """Run a command; what it says as JSON."""
    said = StringIO()
    with redirect_stdout(said):
        code = command_line([*map(str, arguments), "--json", "--quiet"])
    assert code == 0, f"{arguments} ended with {code}"
    return json.loads(said.getvalue())


def changes(photos: Photos, collection: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The counts and times of runs after each kind of change, beside what was done."""
    photos.add(options.images)
    steps: list[tuple[str, Callable[[], None], dict[str, int]]] = [
        ("first run", lambda: None, {"new": options.images}),
        ("nothing", lambda: None, {}),
        ("added", lambda: photos.add(options.add), {"new": options.add}),
        ("changed", lambda: photos.change(options.change), {"changed": options.change}),
        ("deleted", lambda: photos.delete(options.delete), {"deleted": options.delete}),
        ("moved", lambda: photos.move(options.move), {"moved": options.move}),
        ("nothing again", lambda: None, {}),
    ]
    done = []
    for name, change, wanted in steps:
        change()
        paths = [photos.folder] if name == "first run" else []
        told = slq("index", *paths, "-c", collection, *(["-m", options.adapter] if paths else []))
        counts = {kind: told[kind] for kind in ("new", "changed", "moved", "duplicates", "deleted", "failed") if told[kind]}
        # Sample images can be equal by chance: one that is there already is a duplicate, and one that was deleted before is not known.
        encoded = told["new"] + told["changed"]
        assert told["encoded"] <= encoded, f"{name}: {told['encoded']} encoded for {encoded} contents"
        done.append({"after": name, "files": wanted, "counts": counts, **{key: told[key] for key in ("encoded", "rows", "seconds")}})
        console.print(done[-1])
        assert holds(photos, collection), f"after {name} the rows are not those of the files"
    return done


def holds(photos: Photos, collection: Path) -> bool:
    """Whether the rows are those of the files, by name and content."""
    with Collection(collection) as opened:
        rows = {row.id: row.content_hash for batch in opened.rows.scan() for row in batch}
        return rows == photos.contents() and opened.verify() == []


def kills(photos: Photos, collection: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of a change and a kill; what was lost or doubled, and how often a content was encoded again."""
    seconds = {kind: 2.0 for kind in KINDS}
    counts: dict[str, Any] = {"kills": 0, **{f"kills of {kind}": 0 for kind in dict.fromkeys(KINDS)}, "acknowledged lost": 0, "refused": 0}
    for number in track(range(options.kills), "kills", console=console):
        kind = KINDS[number % len(KINDS)]
        for change in (photos.add, photos.change, photos.delete, photos.move):
            change(photos.draw.randint(0, 20))
        place, work = _work(kind, collection, options)
        clock = time.monotonic()
        while attempt(work, collection, photos.draw.uniform(0, seconds[kind])) != -signal.SIGKILL:  # it had ended by then
            seconds[kind], clock = max(0.05, time.monotonic() - clock), time.monotonic()
            for change in (photos.add, photos.change, photos.delete):
                change(photos.draw.randint(5, 20))
            place, work = _work(kind, collection, options)
        counts["kills"] += 1
        counts[f"kills of {kind}"] += 1
        if (place / "collection.json").exists():
            with Collection(place) as opened:  # a deletion may have taken anything by now
                counts["acknowledged lost"] += 0 if kind == "delete" else len(opened.verify())
            if kind == "delete":
                counts["refused"] += attempt(work, collection) != 0
        if kind == "delete":
            shutil.rmtree(place, ignore_errors=True)
    slq("index", "-c", collection)
    counts["rows are those of the files"] = holds(photos, collection)
    counts["largest distance of a vector"] = _distance(photos, collection, options)
    return counts


def _work(kind: str, collection: Path, options: argparse.Namespace) -> tuple[Path, Callable[[Path], object]]:
    """What is killed, and the folder that it works in."""
    place = collection
    if kind == "delete":
        place = collection.with_name("copy")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(collection, place)
    arguments = {
        "index": ["index", "-c", place, "--batch-size", 8, "--quiet"],
        "optimize": ["collection", "optimize", place, "--quiet"],
        "delete": ["collection", "delete", place, "--yes", "--quiet"],
    }[kind]

    def work(_: Path) -> None:
        code = command_line([*map(str, arguments)])
        assert code == 0, f"{kind} ended with {code}"

    return place, work


def _distance(photos: Photos, collection: Path, options: argparse.Namespace) -> float:
    """The largest distance of a row's vector from that of a run that nobody killed."""
    fresh = collection.with_name("fresh")
    slq("index", photos.folder, "-c", fresh, "-m", options.adapter)
    with Collection(fresh) as anew, Collection(collection) as old:
        wanted = {row.id: row.vector for batch in anew.rows.scan() for row in batch}
        found = {row.id: row.vector for batch in old.rows.scan() for row in batch}
    assert wanted.keys() == found.keys()
    return float(f"{max(float(np.abs(wanted[id_] - found[id_]).max()) for id_ in wanted):.3g}")


def main() -> None:
    """Index, change and kill; the result goes to research/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--add", type=int, default=500)
    parser.add_argument("--change", type=int, default=200)
    parser.add_argument("--delete", type=int, default=300)
    parser.add_argument("--move", type=int, default=100)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        number = options.images + options.add + options.change + 100 * options.kills
        write_sample_data(Path(scratch) / "data", "train", number, seed=options.seed)
        model = load_model(device="cpu")
        encoder = LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(options.seed)))
        options.adapter = Path(scratch) / "adapter"
        encoder.save_pretrained(options.adapter)
        photos = Photos(Path(scratch) / "photos", sorted((Path(scratch) / "data" / "images").iterdir(), reverse=True), draw)
        result = {"changes": changes(photos, Path(scratch) / "collection", options)}
        result["kills"] = kills(photos, Path(scratch) / "collection", options)
        console.print(result["kills"])
    write_result("collections", result, sys.argv, options.seed)


if __name__ == "__main__":
    main()
