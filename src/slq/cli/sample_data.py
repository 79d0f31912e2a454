"""`slq sample-data`: images and captions to try everything on."""

from __future__ import annotations

from slq import console
from slq.cli.command import command
from slq.config import SampleDataConfig
from slq.errors import ConfigError


@command("sample-data")
def app(config: SampleDataConfig) -> None:
    """Write the picture-book world as ordinary files, to train, evaluate and search on without any download.

    Beside captions.jsonl stand three BEIR sets over the same images: knowledge/ (facts that never name what is shown), composed/ (an
    image and a change: "but blue") and rendered/ (names rendered as images).

        slq sample-data data/test

        slq sample-data data/train --split train --count 1000

        slq eval data/test/knowledge -m my-adapter
    """
    from PIL import Image

    from slq.io.files import write_atomic
    from slq.io.outputs import check_output_file
    from slq.miniature import export

    assert config.output is not None
    if config.contact_sheet:
        format = Image.registered_extensions().get(config.output.suffix.lower())
        if format is None:
            raise ConfigError(f"A contact sheet is an image: name a file such as {config.output.with_suffix('.png')}.")
        check_output_file(config.output, overwrite=config.overwrite)
        write_atomic(config.output, lambda path: export.contact_sheet().save(path, format))
        console.show({"output": str(config.output)}, lambda: console.result(f"Contact sheet written to {config.output}."))
        return
    total = config.count or export.DEFAULT_COUNTS[config.split]
    with console.progress_bar("drawing", total) as advance:
        written = export.write_sample_data(
            config.output, config.split, config.count, config.seed, config.held_out_style, config.overwrite, advance
        )
    console.show(
        {"output": str(config.output), "split": config.split, "count": written},
        lambda: console.result(f"{written} images in {config.output}, beside them captions.jsonl, knowledge/, composed/ and rendered/."),
    )
