"""The second half of the page of a run: lineage, program, mutations, cost, and how to go on from here."""

from __future__ import annotations

from collections.abc import Sequence

from evolion.pictures.html import said
from evolion.pictures.run_material import Ablated, LineageStep, MutationUse, RunMaterial
from evolion.pictures.run_sections import paragraph, section, shown_table
from evolion.pictures.run_words import percent, spread
from evolion.pictures.words import number

__all__ = ["cost", "lineage", "mutations", "program", "reproduction"]

_MOST_NAMED = 12


def preformatted(lines: Sequence[str], label: str, *, changes: bool = False) -> str:
    """Return lines in a box that scrolls within the page; lines that begin with "+" or "-" are marked if `changes`."""
    marked = []
    for line in lines:
        kind = {"+": "ins", "-": "del"}.get(line[:1]) if changes else None
        marked.append(f"<{kind}>{said(line)}</{kind}>" if kind else said(line))
    body = "\n".join(marked)
    return f'<pre class="code" tabindex="0" role="region" aria-label="{said(label)}">{body}</pre>\n'


def folded(summary: str, body: str, *, shown: bool = False) -> str:
    """Return markup that a reader may unfold; on paper it is always shown."""
    return f"<details{' open' if shown else ''}><summary>{said(summary)}</summary>\n{body}</details>\n"


# ---------------------------------------------------------------------------------------------------------------------
# Lineage


def lineage(material: RunMaterial) -> str:
    """Return the way from the warm start to the winner, a card for each step."""
    title = "How it came about"
    if not material.lineage:
        return section("lineage", title, '<p class="gap">There is no candidate whose way could be told.</p>\n')
    count = sum(len(step.numbers) for step in material.lineage) - 1
    words = (
        f"{count:,} mutation{'s' * (count != 1)} lead from the first program to candidate "
        f"{material.lineage[-1].numbers[-1]}. Each effect is the change of the value from parent to child, with its "
        "standard error where the noise is known; below zero is better. Steps that changed nothing beyond noise (two "
        "standard errors) stand together."
    )
    notes = "".join(paragraph(note) for note in material.lineage_notes)
    cards = "".join(_card(step) for step in material.lineage)
    return section("lineage", title, f'{paragraph(words)}{notes}<ol class="steps">\n{cards}</ol>\n')


def _card(step: LineageStep) -> str:
    if len(step.numbers) > 1:
        return _neutral(step)
    changed_by = "" if step.change is None else spread(step.change, step.error)
    effect = ", ".join(filter(None, [changed_by, step.effect]))
    where = [f"stage {step.stage}"] if step.stage else []
    where += [f"value {number(step.value, 4)}"] if step.value is not None else []
    where += ["fresh seeds"] if step.confirmed else []
    look = " better" if step.change is not None and step.change < 0 and not step.effect else ""
    name = f"Changes of candidate {step.numbers[0]}"
    changed = preformatted(step.difference, name, changes=True) if step.difference else ""
    return (
        f'<li class="step{look}"><p><strong>{said(step.mutations[0])}</strong> candidate {step.numbers[0]:,}: '
        f"<b>{said(effect)}</b> <small>{said(', '.join(where))}</small></p>\n{changed}</li>\n"
    )


def _neutral(step: LineageStep) -> str:
    pairs = [f"{n} ({mutation})" for n, mutation in zip(step.numbers, step.mutations, strict=True)]
    more = len(pairs) - _MOST_NAMED
    named = ", ".join(pairs[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return (
        f'<li class="step neutral"><p><strong>{len(pairs):,} steps</strong> {said(step.effect)} '
        f"<small>candidates {said(named)}</small></p></li>\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# The program


def program(material: RunMaterial) -> str:
    """Return the program, its differences from others, and what each of its statements is worth."""
    source = material.source
    if source is None:
        return section("program", "The program", '<p class="gap">There is none.</p>\n')
    notes = "".join(paragraph(note) for note in source.notes)
    body = preformatted(source.text.splitlines(), source.title) + notes
    if source.nearest:
        body += "<h3>Beside the nearest known optimizer</h3>\n"
        body += paragraph(f"Nearest by what it computes: {source.nearest}.")
        body += _differing(source.from_nearest, f"Lines of {source.nearest_name} (−) and of this program (+)")
    else:
        body += "<h3>Beside the nearest known optimizer</h3>\n" + paragraph("No known optimizer is near.")
    body += "<h3>Beside the warm start</h3>\n"
    body += _differing(source.from_seed, "Lines of the warm start (−) and of this program (+)")
    return section("program", source.title, f"{body}{_ablation(source.ablated)}")


def _differing(lines: Sequence[str], label: str) -> str:
    if not lines:
        return paragraph("The texts are the same.")
    return f"{paragraph(f'{label}:')}{preformatted(lines, label, changes=True)}"


def _ablation(ablated: Sequence[Ablated]) -> str:
    if not ablated:
        return ""
    tasks = list(dict.fromkeys(task for row in ablated for task in row.effects))
    heads = ["statement", "kept", *(f"without it, {task}" for task in tasks)]
    rows = [
        [row.statement, "removed" if row.removed else "kept", *(_worth(row, task) for task in tasks)] for row in ablated
    ]
    return (
        "<h3>What each statement is worth</h3>\n"
        + shown_table("Change of the loss without the statement ± standard error; above zero is worse", heads, rows)
        + paragraph("A statement without which nothing is lost beyond noise on any task was removed.")
    )


def _worth(row: Ablated, task: str) -> str:
    if not row.effects:
        return "does the same"
    if task not in row.effects:
        return "–"
    pair = row.effects[task]
    return "a run diverged" if pair is None else f"{pair[0]:+.4f} ± {pair[1]:.4f}"


# ---------------------------------------------------------------------------------------------------------------------
# Mutations, cost, how to go on


def mutations(material: RunMaterial) -> str:
    """Return what each kind of mutation has led to."""
    if not material.mutations:
        return section("mutations", "Mutations", '<p class="gap">There are none.</p>\n')
    heads = ["mutation", "tried", "stopped by the probe", "training failed", "known by key"]
    heads += ["better than the parent", "beyond noise", "new best"]
    words = (
        "Better than the parent counts first sights, of which half are better by chance where a mutation does nothing; "
        "beyond noise are those that came further or lie more than two standard errors below the parent."
    )
    adapted = any(use.share is not None for use in material.mutations)
    if adapted:
        heads.append("share in draws of late")
        words += " Mutations that have paid are drawn more often: the last column is from the latest checkpoint."
    rows = [_use(use, adapted) for use in material.mutations]
    return section("mutations", "Mutations", shown_table("What mutations have led to", heads, rows) + paragraph(words))


def _use(use: MutationUse, adapted: bool) -> list[str]:
    counts = (use.stopped, use.failed, use.known, use.better, use.resolved, use.best)
    share = ["–" if use.share is None else percent(use.share)] if adapted else []
    return [use.name, f"{use.tried:,}", *(_share(count, use.tried) for count in counts), *share]


def _share(count: int, whole: int) -> str:
    return f"{count:,} ({percent(count / whole)})" if count and whole else f"{count:,}"


def cost(material: RunMaterial) -> str:
    """Return what the run has cost, and what went wrong with workers."""
    terms = "".join(f"<dt>{said(term)}</dt><dd>{said(text)}</dd>\n" for term, text in material.costs)
    faults = "".join(f"<li>{said(name)}: {count:,}</li>\n" for name, count in material.faults)
    wrong = f"<ul>\n{faults}</ul>\n" if faults else paragraph("No fault of a worker is known.")
    kept = "".join(f"<li>{said(text)}</li>\n" for text in material.quarantined)
    quarantine = f"<p>Programs in quarantine:</p>\n<ul>\n{kept}</ul>\n" if kept else ""
    return section("cost", "Cost", f"<dl>\n{terms}</dl>\n<h3>Faults</h3>\n{wrong}{quarantine}")


def reproduction(material: RunMaterial) -> str:
    """Return configuration, versions and commands."""
    commands = "".join(
        f"<dt>{said(what)}</dt><dd>{preformatted([command], what)}</dd>\n" for what, command in material.commands
    )
    versions = "".join(f"<dt>{said(name)}</dt><dd>{said(text)}</dd>\n" for name, text in material.environment.items())
    words = "The same configuration and seed give the same run, for any number of workers and any order of completion."
    return section(
        "reproduction",
        "Made with, and how to go on",
        f"<dl>\n{commands}</dl>\n{paragraph(words)}"
        + folded("Versions and device class", f'<dl class="versions">\n{versions}</dl>\n')
        + folded("Configuration", preformatted(material.configuration.splitlines(), "Configuration")),
    )
