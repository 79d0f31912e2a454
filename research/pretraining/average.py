"""The mean of weights from several points of one pre-training: `python -m research.pretraining.average --out DIR FOLDER FOLDER ...`.

Points that went on from one another lie in one valley, and their mean generalises a little better than each (Wortsman et al. 2022, model
soups; Izmailov et al. 2018). Tokenizer, config and template are those of the first folder.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from slq.io.files import write_atomic

WEIGHTS = "model.safetensors"


def average(folders: list[Path], out: Path) -> None:
    """Write the mean of the folders' weights, rounded once; raises SystemExit where they do not belong to one model."""
    first, *others = [load_file(folder / WEIGHTS) for folder in folders]
    if any(
        {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in first.items()} for other in others
    ):
        raise SystemExit("these weights are not of one model: they differ in names or shapes")
    mean = {
        name: torch.stack([each[name].float() for each in (first, *others)]).mean(dim=0).to(value.dtype) for name, value in first.items()
    }
    shutil.copytree(folders[0], out)
    write_atomic(out / WEIGHTS, lambda path: save_file(mean, path, metadata={"format": "pt"}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m research.pretraining.average", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of weights, as pre-training writes them")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    options = parser.parse_args()
    average(options.folders, options.out)


if __name__ == "__main__":
    main()
