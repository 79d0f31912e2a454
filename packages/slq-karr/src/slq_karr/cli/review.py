"""`slq karr review`: judge a set's queries on a local page."""

from __future__ import annotations

from slq import console
from slq.cli.command import command
from slq_karr.config import ReviewConfig


@command("karr review")
def review(config: ReviewConfig) -> None:
    """Judge the queries of a set on a page of this machine: accept, edit or reject, by keyboard.

        slq karr review my-set --reviewer ada

    Every decision is on the disk, in SET/reviews.jsonl, before the page goes on. Several reviewers may work at once, each with a name of
    their own, on one server or with one command each; nobody sees the others' decision on a query before making theirs.
    """
    import webbrowser

    from slq_karr.review.server import ReviewServer
    from slq_karr.review.session import Review, reviewer_name

    assert config.folder is not None
    name = reviewer_name(config.reviewer or "")
    session = Review(config.folder)
    with ReviewServer(session, config.port) as server:
        console.result(f"{len(session.candidates)} candidates: {server.address(name)}")
        for failure in [*session.failures, *session.log.failures]:
            console.warn(f"skipped: {failure}")
        console.note("Ctrl-C stops the server; every decision is saved when it is made.")
        if not config.no_browser:
            webbrowser.open(server.address(name))
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.note(f"\nStopped. The decisions are in {session.log.path}.")
