"""`slq karr review`: judge a set's queries on a local page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def review(
    set_folder: Annotated[Path, typer.Argument(metavar="SET", help="Folder of the set: candidates.jsonl and its images.")],
    reviewer: Annotated[str, typer.Option("--reviewer", help="Your name, which stands beside your decisions.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes any free one.")] = 8765,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
) -> None:
    """Judge the queries of a set on a page of this machine: accept, edit or reject, by keyboard.

        slq karr review my-set --reviewer ada

    Every decision is on the disk, in SET/reviews.jsonl, before the page goes on. Several reviewers may work at once, each with a name of
    their own, on one server or with one command each; nobody sees the others' decision on a query before making theirs.
    """
    import webbrowser

    from slq_karr.review.server import ReviewServer
    from slq_karr.review.session import Review, reviewer_name

    name = reviewer_name(reviewer)
    session = Review(set_folder)
    with ReviewServer(session, port) as server:
        typer.echo(f"{len(session.candidates)} candidates: {server.address(name)}")
        for failure in [*session.failures, *session.log.failures]:
            typer.secho(f"  left out: {failure}", err=True)
        typer.echo("Ctrl-C stops the server; every decision is saved when it is made.")
        if not no_browser:
            webbrowser.open(server.address(name))
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo(f"\nStopped. The decisions are in {session.log.path}.")
