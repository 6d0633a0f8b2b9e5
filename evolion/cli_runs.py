"""The command `evolion fork`: a run that begins with the candidates of another."""

from __future__ import annotations

import json

import click

from evolion.cli_text import JSON

__all__ = ["fork"]


@click.command()
@click.argument("place", metavar="DIR:NUMBER")
@click.option("--out", required=True, metavar="OTHER", help="The folder of the fork, new or empty.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as seed=5; repeatable.")
@JSON
def fork(place: str, out: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Make a run that shares candidates 0 to NUMBER of the run DIR with it, and goes its own way from there.

    What may be set: seed, search.… (but for warm_start, lag and alike), proposer.…, retest.…, ablation.…,
    workers.…. The run DIR may be under way. Nothing is trained: `evolion resume OTHER` goes on.
    """
    folder, colon, number = place.rpartition(":")
    if not (folder and colon and number.isdecimal() and number.isascii()):
        raise click.UsageError(f"name a run and the last candidate to share, such as runs/first:500, not {place!r}")
    from evolion.fork import fork

    config = fork(folder, int(number), out, overrides=overrides)
    budget, shared = config.search.budget, int(number) + 1
    if as_json:
        print(json.dumps({"folder": out, "source": folder, "number": int(number), "shared": shared, "budget": budget}))
        return
    print(
        f"{out} shares candidates 0 to {int(number):,} with {folder}; {budget - shared:,} more are to come. "
        f"Go on with: evolion resume {out}"
    )
