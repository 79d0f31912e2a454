"""Building a set: images -> captions -> targets -> queries -> checks -> the other images that answer them.

The request log is the only state. Everything else is derived from it, in the same order every time, so that a stopped build continues
where it was by running through the same steps: what was answered before is read, not asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from slq.errors import Failure, InputError, OutputExistsError
from slq.io.files import map_os_errors
from slq.io.outputs import check_reads
from slq_karr.answers import read_caption, read_query, read_targets, read_truth
from slq_karr.candidates import CANDIDATES, SKIPPED, QueryCandidate, read_own_rows, write_candidates
from slq_karr.categories import label, quotas
from slq_karr.gallery import GalleryImage, find_source, gather
from slq_karr.limits import Limits
from slq_karr.models import Model
from slq_karr.prompts import Prompts
from slq_karr.request_log import RequestLog
from slq_karr.request_runner import Progress, Request, RequestRunner
from slq_karr.schedule import QueryPlan, Schedule
from slq_karr.settings import SETTINGS, Options, settle
from slq_karr.surface import Queries, Surface, mentions
from slq_karr.verify import FindLeaks, check_words, judge_answerable, judge_true, own_leaks

LOG_FILE = "requests.jsonl"
READ_AHEAD = 1.5  # images whose targets are looked for, to each query that lacks: not every image has one of the category that lacks


@dataclass(frozen=True)
class Built:
    """What a build gave. missing: category -> accepted queries that it lacks, where the images did not have more. spent: of all runs."""

    candidates: tuple[QueryCandidate, ...]
    skipped: tuple[Failure, ...]
    missing: Mapping[str, int]
    spent: float

    @property
    def accepted(self) -> list[QueryCandidate]:
        """The candidates that passed every check."""
        return [each for each in self.candidates if each.accepted]


def build(
    images: Path,
    out: Path,
    model: Model,
    prompts: Prompts,
    options: Options | None = None,
    limits: Limits | None = None,
    find_leaks: FindLeaks | None = None,
    on_progress: Progress = lambda *_: None,
    backoff: float = 1.0,
    endpoint: str = "",
    allow_outside: bool = False,
) -> Built:
    """Build a set in a folder, or resume it; see docs/karr.md.

    Args:
        images: captions file, folder with captions, or bare folder of images.
        out: folder of the set.
        model: what is asked.
        prompts: the texts that it is asked with.
        options: what is wanted of the set.
        limits: speed and costs.
        find_leaks: says what of a query names its target; by default `slq_karr.leaks`.
        on_progress: told of every answer.
        backoff: seconds before the first retry of a request; doubled with each further one.
        endpoint: its address, for the record alone.
        allow_outside: whether the captions file may name images outside of its folder.

    Returns:
        All candidates of the set, what was skipped, and what is missing.

    Raises:
        OutputError: if the folder holds the images, or files that no build wrote there.
        InputError: if the set was begun with other settings, or asking had to end before the set was whole; what there is by then is
            written, and the next run resumes from it.
    """
    options, limits, find_leaks = options or Options(), limits or Limits(), find_leaks or own_leaks()
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise InputError(f"{out} lies among the images of {images}, and would be taken for some of them: choose a folder beside it.")
    check_reads(out, [images])
    _check_folder(out)
    source = find_source(images, allow_outside)
    settings = {
        "images": str(images),
        "images_fingerprint": source.fingerprint,
        "endpoint": endpoint,
        "model": model.name,
        "model_settings": dict(model.settings),
        "prompts": prompts.hashes,
        **asdict(replace(options, mix=())),
        "mix": dict(options.mix),
    }
    with map_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with RequestLog(out / LOG_FILE) as log:
        settle(out, settings)
        gallery, failures = gather(source, out)
        runner = RequestRunner(model, log, limits, backoff, on_progress)
        run = _Build(out, gallery, runner, prompts, options, find_leaks)
        run.skipped += [{"id": each.item, "stage": "images", "reason": each.reason} for each in failures]
        return run.all_stages()


def _check_folder(out: Path) -> None:
    """Refuse a folder with files of somebody's own, which those of a set could replace; a log of requests may stand there beforehand."""
    if (
        out.is_dir()
        and not (out / SETTINGS).is_file()
        and (foreign := [path for path in out.iterdir() if not path.name.startswith(LOG_FILE)])
    ):
        raise OutputExistsError(f"{out} holds {foreign[0].name} and no {SETTINGS} of a set: choose a new or an empty folder.")


class _Build:
    """One run through all stages."""

    def __init__(
        self, out: Path, gallery: list[GalleryImage], runner: RequestRunner, prompts: Prompts, options: Options, find_leaks: FindLeaks
    ):
        self.out, self.runner, self.prompts, self.options, self.find_leaks = out, runner, prompts, options, find_leaks
        self.shown = {shown.image: shown for shown in gallery}
        self.candidates: list[QueryCandidate] = []
        self.skipped: list[dict[str, str]] = []
        self.schedule = Schedule({}, options.tries)
        self.before = len(read_own_rows(out / CANDIDATES))

    def all_stages(self) -> Built:
        """Captions, queries, checks and positives, and what they gave."""
        try:
            self._write_captions()
            self._write_queries()
            self._find_positives()
        except BaseException:
            self._save()
            raise
        self._save(whole=True)
        skipped = tuple(Failure(f"{each['id']} ({each['stage']})", each["reason"]) for each in self.skipped)
        missing = {name: count for name, count in self.schedule.missing().items() if count}
        return Built(tuple(self.candidates), skipped, missing, self.runner.budget.spent)

    def _write_captions(self) -> None:
        """Captions for images that came without."""
        bare = [shown for shown in self.shown.values() if not shown.captions]
        if bare and self.options.captions_only:
            raise InputError("Without captions the model must see the images: leave out --captions-only, or give a captions file.")
        text = self.prompts.fill("caption")
        requests = [self._request("caption", shown.image, text, shown) for shown in bare]
        for shown, found in zip(bare, self.runner.ask_all(requests, read_caption), strict=True):
            if isinstance(found, Failure):
                self._skip("caption", found)
                del self.shown[shown.image]
            else:
                self.shown[shown.image] = replace(shown, captions=(found,))
        if not self.shown:
            raise InputError(f"None of the {len(bare)} images got a caption: see {self.out / SKIPPED}.")

    def _write_queries(self) -> None:
        """Rounds of targets, queries and checks, until every category has what it is to have or the images give no more."""
        order = list(self.shown)
        random.Random(self.options.seed).shuffle(order)
        unseen = list(order)
        self.schedule = Schedule(quotas(dict(self.options.mix), self.options.count or len(order)), self.options.tries)
        self.places = {image: place for place, image in enumerate(self.shown)}
        self.surface = Surface([shown.captions for shown in self.shown.values()])
        queries = Queries()
        while lacking := sum(self.schedule.missing().values()):
            plans = self.schedule.propose(order)
            while unseen and len(plans) < lacking:
                ahead = max(self.runner.limits.concurrency, round(READ_AHEAD * (lacking - len(plans))))
                self._find_targets(unseen[:ahead])
                del unseen[:ahead]
                plans = self.schedule.propose(order)
            if not plans:
                return
            self.schedule.begin(plans)
            self.schedule.accept(self._round(plans, queries))
            self._save()

    def _find_positives(self) -> None:
        """Of the other images that show the target, by captions and targets, those whose scene is most alike; the model judges them."""
        accepted = [each for each in self.candidates if each.accepted]
        asked: list[tuple[QueryCandidate, GalleryImage]] = []
        names = {image: [name for target in targets for name in target.every_name] for image, targets in self.schedule.offers.items()}
        words = {image: "\n".join([*shown.captions, *names.get(image, ())]) for image, shown in self.shown.items()}
        for each in accepted:
            likely = self._likely(each, words)
            each.unjudged = max(0, len(likely) - self.options.max_positives)
            asked += [(each, self.shown[image]) for image in likely[: self.options.max_positives]]
        requests = [self._truth("positives", each, shown) for each, shown in asked]
        for (each, shown), found in zip(asked, self.runner.ask_all(requests, read_truth), strict=True):
            if isinstance(found, Failure):
                self._skip("positives", found)
            elif found[0]:
                each.positives.append(shown.image)

    # --- parts of them --------------------------------------------------------------------------------------------------------

    def _find_targets(self, images: Sequence[str]) -> None:
        requests = [
            self._request("targets", image, self.prompts.targets(self.shown[image].captions[0]), self.shown[image]) for image in images
        ]
        for image, found in zip(images, self.runner.ask_all(requests, read_targets), strict=True):
            if isinstance(found, Failure):
                self._skip("targets", found)
            elif not found:
                self._skip("targets", Failure(image, "the model saw nothing in it that a query could be about"))
            else:
                self.schedule.offers[image] = found

    def _round(self, plans: Sequence[QueryPlan], queries: Queries) -> list[QueryPlan]:
        """Write a query for each plan and check it; the plans whose query is accepted."""
        drafted = self._draft(plans)
        for each in drafted.values():
            check_words(each, self.places[each.image], self.find_leaks, self.surface, queries)
        left = [each for each in drafted.values() if not each.failed]
        judge_answerable(left, self.runner.ask_all, self.prompts, self.find_leaks)
        left = [each for each in left if not each.failed]
        judge_true(left, [self._truth("true_of_image", each, self.shown[each.image]) for each in left], self.runner.ask_all)
        return [plan for plan in plans if plan.image in drafted and drafted[plan.image].accepted]

    def _draft(self, plans: Sequence[QueryPlan]) -> dict[str, QueryCandidate]:
        """A candidate for each plan whose query the model could write, by image."""
        requests = [Request("rewrite", f"{plan.image}, {plan.target.name}, {label(plan.category)}", self._rewrite(plan)) for plan in plans]
        drafted: dict[str, QueryCandidate] = {}
        for plan, request, found in zip(plans, requests, self.runner.ask_all(requests, read_query), strict=True):
            if isinstance(found, Failure) or not found:
                self._skip("rewrite", found or Failure(request.item, "the model knew no query of this category"))
                continue
            target, caption = plan.target, self.shown[plan.image].captions[0]
            id_ = f"q{len(self.candidates) + 1:04d}"
            drafted[plan.image] = QueryCandidate(
                id_, plan.image, caption, target.name, target.names, plan.category, found, positives=[plan.image]
            )
            self.candidates.append(drafted[plan.image])
        return drafted

    def _rewrite(self, plan: QueryPlan) -> str:
        return self.prompts.fill(
            "rewrite",
            caption=self.shown[plan.image].captions[0],
            target=plan.target.name,
            names=", ".join(plan.target.every_name),
            category=label(plan.category),
            description=self.prompts.descriptions[plan.category],
        )

    def _likely(self, candidate: QueryCandidate, words: Mapping[str, str]) -> list[str]:
        """Other images whose words bear one of the target's names, those of the most similar captions first."""
        named = mentions([candidate.target, *candidate.names])
        similarity = dict(zip(self.shown, self.surface.similarities(self.places[candidate.image]), strict=True))
        likely = [image for image, text in words.items() if image != candidate.image and named.search(text)]
        return sorted(likely, key=lambda image: -similarity[image])

    def _truth(self, stage: str, candidate: QueryCandidate, shown: GalleryImage) -> Request:
        """Whether a query is true of an image, its own or another: asked in the same words."""
        text = self.prompts.fill("true_of_image", caption=shown.captions[0], query=candidate.query, target=candidate.target)
        return self._request(stage, f"{candidate.id} {shown.image}", text, shown)

    def _request(self, stage: str, item: str, text: str, shown: GalleryImage) -> Request:
        if self.options.captions_only:
            return Request(stage, item, text)
        return Request(stage, item, text, self.out / shown.image, shown.sha256)

    def _skip(self, stage: str, failure: Failure) -> None:
        self.skipped.append({"id": failure.item, "stage": stage, "reason": failure.reason})

    def _save(self, whole: bool = False) -> None:
        """Write both lists; of a set that is not whole, only if this run has come further than the one before."""
        if whole or len(self.candidates) > self.before:
            write_candidates(self.out, self.candidates, self.skipped)
