"""`slq facts`: what the model tells about its training images."""

from __future__ import annotations

from dataclasses import asdict, replace

from slq import console
from slq.cli.command import command
from slq.config import FactsConfig, ModelConfig, PreprocessingConfig
from slq.errors import InputError, OutputExistsError


@command("facts")
def app(config: FactsConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> None:
    """Let the model tell facts about what your training images show, to be learned beside their captions.

    Capacity on the latent queries' path finds more and forgets facts; what the model itself tells keeps them. It is asked what each image
    shows, for facts about each thing that it names, and what each fact is about; a fact is kept if the last answer names the thing.
    Everything said stands in the file, with the reason where it was not kept. Stopped, the same command goes on.

        slq facts data/train/captions.jsonl -o facts.jsonl

        slq train data/train/captions.jsonl --preset latent-lora --facts facts.jsonl -o my-adapter
    """
    from slq.data import read_pairs
    from slq.encoders.opening import open_model
    from slq.training.telling import Questions, tell_facts

    assert config.data is not None and config.output is not None
    if config.output.is_dir():
        raise OutputExistsError(f"{config.output} is a folder: name a file for the facts, such as {config.output / 'facts.jsonl'}.")
    read = read_pairs(config.data, **config.reading)
    console.list_failures(read.failures)
    console.check_skipped(read.failures, read.num_rows, config.max_skipped)
    frozen = open_model(model, preprocessing)
    asked = {"shown": config.question_shown, "tell": config.question_tell, "recognise": config.question_recognise}
    questions = replace(Questions.of(frozen), **{name: question for name, question in asked.items() if question is not None})
    with console.progress_bar("asking") as bar:
        told = tell_facts(
            frozen,
            read.pairs,
            config.output,
            questions,
            config.facts_per_name,
            config.max_names,
            config.temperature,
            config.seed,
            progress=lambda what, done, total: bar.update(completed=done, total=total, description=f"asking for {what}"),
        )

    if not told.kept:
        raise InputError(f"No fact was kept of what the model told; {config.output} has all of it, with the reasons.")

    def text() -> None:
        console.result(f"{told.kept} facts about {told.names} things, shown by {told.images} images, kept in {config.output}.")
        for reason, count in told.refused.items():
            console.note(f"{count} not kept: {reason}")
        console.note(f"Next: slq train {config.data} --preset latent-lora --facts {config.output} -o my-adapter")

    console.show({"output": str(config.output), **asdict(told)}, text)
