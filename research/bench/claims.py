"""The experiments of `python -m research.paper` as they stand in docs/claims.md: run, copied into the repository, and as tables.

    python -m research.bench.claims --study DIR                     every experiment; DIR keeps trainings, so that a stopped call goes on
    python -m research.bench.claims --study DIR tuning gap          these alone

Results go to research/results/paper-*.json, figures to docs/images/paper-*.png; `python -m research.bench.tables` then fills the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
Result = dict[str, Any]
WAYS = ("text to image", "image to text")
RESULTS = {"comparison": "method-comparison", "further": "latent-lora-variants"}  # of experiments that are not the paper's
SEEDS = {"comparison": 5, "further": 1}  # of experiments that take other than three
SHIPPED_WEIGHTS = 6_307_392  # parameters of the miniature that ships


def main() -> None:
    from research.paper.command import EXPERIMENTS, PaperConfig, run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--without-facts", type=Path)
    parser.add_argument("--with-facts", type=Path)
    parser.add_argument("--beside", action="append", default=[])
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS)
    options = parser.parse_args()
    for name in options.experiments:
        facts = {"without_facts": options.without_facts, "with_facts": options.with_facts}
        seeds = SEEDS.get(name, PaperConfig.seeds)
        run(PaperConfig(experiment=name, output=options.study, beside=tuple(options.beside), seeds=seeds, **facts))
        shutil.copy(options.study / f"{name}.json", ROOT / "research" / "results" / f"{RESULTS.get(name, f'paper-{name}')}.json")
        for figure in options.study.glob(f"{name}*.png"):
            shutil.copy(figure, ROOT / "docs" / "images" / f"paper-{figure.name}")


def result(name: str) -> Result:
    return json.loads((ROOT / "research" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def day(found: Result) -> str:
    return f"Measured on {found['date'][:10]}."


def percent(value: float | Mapping[str, float]) -> str:
    """A fraction, or mean and standard deviation over seeds, in percent."""
    if not isinstance(value, Mapping):
        return f"{100 * value:.1f}"
    return f"{100 * value['mean']:.1f}" + (f" ± {100 * value['sd']:.1f}" if value["sd"] else "")


def found_by(scores: Mapping[str, Any]) -> list[str]:
    """hit@1 and hit@5 both ways, and knowledge's hit@5."""
    return [percent(scores[way][metric]) for way in WAYS for metric in ("hit@1", "hit@5")] + [percent(scores["knowledge"]["hit@5"])]


FOUND = ["text to image, hit@1", "hit@5", "image to text, hit@1", "hit@5", "knowledge, hit@5"]


def pilot() -> str:
    found = result("paper-pilot")
    return table(["read", *FOUND], [[name, *found_by(scores)] for name, scores in found["encoders"].items()]) + f"\n{day(found)}\n"


def tuning() -> str:
    found = result("paper-tuning")
    rows = [["last token, nothing learned", "0", "", *found_by(found["last token"])]]
    rows += [
        [name, f"{one['learned_numbers']:,}", f"{one['learning_rate']:g}", *found_by(one["test"])] for name, one in found["methods"].items()
    ]
    return table(["method", "numbers learned", "learning rate", *FOUND], rows) + f"\n{day(found)}\n"


def cost() -> str:
    found = result("paper-cost")
    rows = [[name, f"{one['seconds']:.0f}", f"{one['peak_bytes'] / 2**20:,.0f}"] for name, one in found["trainings"].items()]
    return table(["training", "seconds", "memory beyond the model's, MB"], rows) + f"\n{day(found)}\n"


def comparison() -> str:
    """What each method finds with the same tricks, in percent; frozen models in bold."""
    found = result("method-comparison")
    figures = ("t2i_hit1", "i2t_hit1", "knowledge_hit5", "minimal_pairs_hit1", "composed_hit5")
    header = ["method", "numbers learned", "adapter, KB", "text to image, hit@1", "image to text, hit@1", "knowledge, hit@5"]
    header += ["minimal pairs", "composed, hit@5", "questions right", "weights changed", "seeds"]
    rows = []
    for row in found["rows"]:
        size = f"{row['bytes'] / 1000:,.0f}" if "bytes" in row else ""
        cells = [points(row[figure]) for figure in (*figures, "retention")]
        changed = "yes" if row["weights_changed"] else "no"
        rows.append([row["name"], f"{row['parameters']:,}", size, *cells, changed, str(row["seeds"])])
    return table(header, rows) + f"\n{day(found)}\n"


def comparison_elsewhere() -> str:
    """The same methods in a style that no training saw, and in galleries of images and captions together."""
    found = result("method-comparison")
    names = {
        "unseen_t2i_hit1": "unseen style: text to image",
        "unseen_i2t_hit1": "image to text",
        "mixed_t2i_hit1": "mixed gallery: text to image",
        "mixed_i2t_hit1": "image to text",
    }
    rows = [[row["name"], *[points(row[name]) for name in names], points(row["modality_gap"], 2)] for row in found["rows"]]
    return table(["method, hit@1", *names.values(), "modality gap"], rows) + f"\n{day(found)}\n"


def comparison_against(key: str = "against") -> str:
    """Differences to LoRA with the same batches and facts, with their intervals."""
    found = result("method-comparison")
    names = {
        "t2i_hit1": "text to image",
        "i2t_hit1": "image to text",
        "knowledge_hit5": "knowledge",
        "minimal_pairs_hit1": "minimal pairs",
        "composed_hit5": "composed",
        "unseen_t2i_hit1": "unseen style, text to image",
        "unseen_i2t_hit1": "unseen style, image to text",
        "mixed_t2i_hit1": "mixed gallery, text to image",
        "mixed_i2t_hit1": "mixed gallery, image to text",
    }

    def cell(told: Mapping[str, Any]) -> str:
        low, high = told["ci95"]
        text = f"{told['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
        return f"**{text}**" if low > 0 or high < 0 else text

    rows = [[name, *[cell(told[figure]) for figure in names]] for name, told in found[key].items()]
    return table(["points more than LoRA", *names.values()], rows) + f"\n{day(found)}\n"


def comparison_against_harder() -> str:
    """The same where near negatives weigh more, for LoRA too."""
    return comparison_against("against_harder")


def comparison_rates() -> str:
    """Every rate that was tried, with the first seed; the one that validation chose in bold."""
    found = result("method-comparison")
    figures = ("validation", "t2i_hit1", "i2t_hit1", "knowledge_hit5", "retention")
    rows = []
    for row in found["rows"]:
        for tried in row.get("tries", ()):
            rates = [f"{tried[name]:g}" for name in ("learning_rate", "latent_lora_learning_rate") if name in tried]
            cells = [", ".join(rates), *[f"{tried[figure]:.1f}" for figure in figures]]
            chosen = all(tried[name] == value for name, value in row["rates"].items())
            rows.append([row["name"], *[f"**{cell}**" if chosen else cell for cell in cells]])
    header = [
        "method",
        "learning rate",
        "validation: hit@1",
        "text to image, hit@1",
        "image to text, hit@1",
        "knowledge, hit@5",
        "questions right",
    ]
    return table(header, rows)


def points(value: Mapping[str, float], digits: int = 1) -> str:
    """Mean and standard deviation over seeds, as they stand in the file."""
    return f"{value['mean']:.{digits}f}" + (f" ± {value['sd']:.{digits}f}" if value["sd"] else "")


def variants() -> str:
    """One change at a time to latent LoRA, on validation images."""
    found = result("latent-lora-variants")
    names = {
        "hit@1": "hit@1, mean of both ways",
        "knowledge": "knowledge, hit@5",
        "mixed gallery, text to image": "mixed gallery: text to image, hit@1",
        "mixed gallery, image to text": "image to text, hit@1",
    }
    rows = [
        [name, *[percent(one[figure]) for figure in names], f"{one['modality gap']['mean']:.2f}"] for name, one in found["variants"].items()
    ]
    return table(["rank 2, one change at a time", *names.values(), "modality gap"], rows) + f"\n{day(found)}\n"


def categories() -> str:
    found = result("paper-tuning")
    columns = {"last token": found["last token"], **{name: one["test"] for name, one in found["methods"].items()}}
    kinds = found["last token"]["knowledge"]["by_category"]
    return table(
        ["knowledge, hit@5", *columns],
        [[kind, *[percent(one["knowledge"]["by_category"][kind]) for one in columns.values()]] for kind in kinds],
    )


def rates() -> str:
    """How the learning rate trades explicit retrieval for knowledge and for what the model answers; the chosen one in bold."""
    found, left = result("paper-tuning"), result("paper-retention")["by_rate"]
    rows = []
    for name, method in found["methods"].items():
        for rate, one in method["by_rate"].items():
            cells = [
                rate,
                *[percent(one[figure]) for figure in ("validation", "test", "test_knowledge")],
                percent(left[name][rate]["right"]),
            ]
            rows.append([name, *[f"**{cell}**" if float(rate) == method["learning_rate"] else cell for cell in cells]])
    return table(["method", "learning rate", "validation: hit@1", "test: hit@1", "test: knowledge, hit@5", "questions right"], rows)


def blend() -> str:
    found = result("paper-blend")
    rows = [[name, *found_by(one["half"]["test"])] for name, one in found["methods"].items()]
    return table(["half of the way back", *FOUND], rows) + f"\n{day(found)}\n"


def retention() -> str:
    found = result("paper-retention")
    tasks = list(found["before"])
    rows = [["before", *[percent(found["before"][task]) for task in tasks], "", ""]]
    for name, one in found["methods"].items():
        changed = f"{one['changed']['mean']:.0f} ± {one['changed']['sd']:.0f} of {found['questions']}"
        rows.append([name, *[percent(one["right"][task]) for task in tasks], changed, "yes" if one["weights_unchanged"] else "no"])
    return table(["", *tasks, "answers changed", "weights the same to the bit"], rows) + f"\n{day(found)}\n"


def gap() -> str:
    found = result("paper-gap")
    names = {"distance_of_means": "gap", "cosine_of_pairs": "cosine of a pair", "cosine_of_strangers": "cosine of strangers"}

    def cell(value: Mapping[str, float]) -> str:
        return f"{value['mean']:.2f}" + (f" ± {value['sd']:.2f}" if value["sd"] else "")

    rows = [[method, *[cell(one[name]) for name in names]] for method, one in found["methods"].items()]
    return table(["method", *names.values()], rows) + f"\n{day(found)}\n"


def ablations() -> str:
    found = result("paper-ablations")
    rows = []
    for name, one in found["variants"].items():
        on_validation = [percent(one["chosen_by"][each]) if "chosen_by" in one else "" for each in ("explicit", "knowledge")]
        both = {figure: statistics.mean(one[way]["hit@1"][figure] for way in WAYS) for figure in ("mean", "sd")}
        rows.append([name, percent(both), percent(one["knowledge"]["hit@5"]), *on_validation])
    header = [
        "one change at a time",
        "test: hit@1, mean of both ways",
        "test: knowledge, hit@5",
        "validation: hit@1",
        "validation: knowledge",
    ]
    return table(header, rows) + f"\n{day(found)}\n"


def maps() -> str:
    found = result("paper-maps")
    shares = found["attention_to_the_image_by_latent"]
    return (
        f"Of its attention a latent gives {100 * min(shares):.0f} to {100 * max(shares):.0f} % to the image; maps of two latents over "
        f"the same image have a cosine of {found['cosine_between_latents_maps']:.2f}. {day(found)}\n"
    )


def controls() -> str:
    found, scratch = result("paper-controls"), result("paper-scratch")
    rows = [[name, *found_by(scores)] for name, scores in found["encoders"].items()]
    rows.append(["an encoder from scratch", *found_by(scratch["test"])])
    return table(["", *FOUND], rows) + f"\n{day(found)[:-1]}; the last row on {scratch['date'][:10]}.\n"


def scale() -> str:
    """The smaller miniature beside the one that ships, whose rows are those of `tuning`."""
    smaller, shipped = result("paper-scale"), result("paper-tuning")
    ships = SHIPPED_WEIGHTS / 1e6, {"last token": {"test": shipped["last token"]}, **shipped["methods"]}
    rows = []
    for weights, of in [*((one["weights"] / 1e6, one) for one in smaller["backbones"]), ships]:
        for method in ("last token", "5 latents", "latents, as in the paper", "lora", "full"):
            rows.append([f"{weights:.1f}", method, *found_by(of[method]["test"])])
    return table(["million weights", "method", *FOUND], rows) + f"\n{day(smaller)[:-1]}; the shipped one on {shipped['date'][:10]}.\n"


TABLES: dict[str, Callable[[], str]] = {
    "pilot": pilot,
    "tuning": tuning,
    "comparison": comparison,
    "comparison against": comparison_against,
    "comparison against harder": comparison_against_harder,
    "comparison elsewhere": comparison_elsewhere,
    "comparison rates": comparison_rates,
    "variants": variants,
    "cost": cost,
    "categories": categories,
    "rates": rates,
    "blend": blend,
    "retention": retention,
    "gap": gap,
    "ablations": ablations,
    "maps": maps,
    "controls": controls,
    "scale": scale,
}

if __name__ == "__main__":
    main()
