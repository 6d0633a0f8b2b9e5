"""The first half of the page of a run: what was found, how the best value fell, the funnel, who is ahead."""

from __future__ import annotations

from collections.abc import Sequence

from evolion.evaluators.protocol.report import Estimate
from evolion.pictures.files import panel_image
from evolion.pictures.html import said
from evolion.pictures.looks import plain
from evolion.pictures.page_style import inline, swatch
from evolion.pictures.run_charts import POINT, legend_of, panels_of
from evolion.pictures.run_material import Evidence, Leader, RunMaterial
from evolion.pictures.run_words import compared, finding, percent
from evolion.pictures.tables import table
from evolion.pictures.words import number

__all__ = ["found", "funnel", "leaderboard", "progress", "section", "shown_table"]

_STATES = {
    "finished": "Finished.",
    "running": "A process is at work on it; this page says how far it was.",
    "stopped": "Not finished, and no process is at work on it.",
}


def section(name: str, title: str, body: str) -> str:
    """Return a section of the page; `body` is markup."""
    return f'<section id="{name}"><h2>{said(title)}</h2>\n{body}</section>\n'


def shown_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts that may come from a run, without control characters and without endless names."""
    cells = [[plain(cell, 200) for cell in row] for row in rows]
    return table(plain(caption, 200), [plain(head, 80) for head in heads], cells)


def paragraph(text: str) -> str:
    """Return a paragraph of a text."""
    return f"<p>{said(text)}</p>\n"


# ---------------------------------------------------------------------------------------------------------------------
# What was found


def found(material: RunMaterial) -> str:
    """Return the answer in a sentence, with its evidence."""
    verdict, sentence = finding(material)
    style = {"better": "faster", "not better": "slower"}.get(verdict, verdict.replace(" ", "-"))
    state = f"{_STATES[material.state]} {material.told:,} of {material.budget:,} candidates told."
    answer = f'<ul class="findings">\n<li class="{style}"><strong>{said(sentence)}</strong></li>\n</ul>\n'
    return section("found", "What was found", f"{answer}{paragraph(state)}{_evidence(material)}")


def _evidence(material: RunMaterial) -> str:
    rows = compared(material)
    if not rows:
        return ""
    seeds, trials = rows[0].seeds, rows[0].trials
    cells = [
        [
            f"{row.program} on {row.task}",
            row.verdict,
            _difference(row.difference),
            _difference(row.train_difference),
        ]
        for row in rows
    ]
    heads = ["the winner against", "test loss", "difference of test losses", "difference of training losses"]
    return shown_table(
        "Paired differences, the winner less the baseline: below zero is better", heads, cells
    ) + paragraph(
        f"All programs were tuned alike, with {_counted(trials, 'trial')} each on every task, and then trained on "
        f"{_counted(seeds, 'fresh seed')} that nothing was chosen on; the loss is that of the test split. Differences "
        "are paired by seed, with their 95 % interval. One in twenty such intervals misses by chance, and they are not "
        f"corrected for there being {len(rows)} of them."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _difference(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    low, high = (number(end) for end in (estimate.low, estimate.high))
    return f"{number(estimate.value)} ({low} to {high})"


# ---------------------------------------------------------------------------------------------------------------------
# Progress


def progress(material: RunMaterial) -> str:
    """Return the pictures of how the best value fell."""
    shown = material.progress
    panels = panels_of(shown)
    if not panels:
        gap = "No candidate has a value yet." if material.state != "finished" else "No candidate had a value."
        return section("progress", "Progress", f'<p class="gap">{gap}</p>\n')
    alt = _alt(material)
    keys = "".join(f"<li>{swatch(look, line=name != POINT)}{said(name)}</li>\n" for name, look in legend_of(shown))
    pictures = "".join(
        inline(panel_image(panel), f"{alt} {panel.title} along the axis.", f"progress-{i}-") + "\n"
        for i, panel in enumerate(panels)
    )
    drawn = len(shown.points.values)
    some = f" {drawn:,} of {shown.shown:,} candidates are drawn." if shown.shown > drawn else ""
    caption = (
        f"Values in stage {shown.stage} of {shown.stages}, the furthest that any candidate finished: the geometric "
        "mean over tasks of the loss above the task's floor, smaller is better. At first sight the best owes part of "
        f"its place to the luck of its seed; confirmed values rest on fresh seeds.{some} Those far above the lines "
        "are left out. Training steps are those planned, all learning rates and seeds together."
    )
    gap = "" if shown.confirmed.values else '<p class="gap">No candidate of this stage is confirmed.</p>\n'
    return section(
        "progress",
        "Progress",
        f'<figure><ul class="key" aria-label="Legend">\n{keys}</ul>\n<div class="panels" role="group" '
        f'aria-label="{said(alt)}">\n{pictures}</div>\n<figcaption>{said(caption)}</figcaption></figure>\n{gap}',
    )


def _alt(material: RunMaterial) -> str:
    first, confirmed = material.progress.first.values, material.progress.confirmed
    text = f"The best value at first sight fell from {number(first[0])} to {number(first[-1])}."
    if confirmed.values:
        low, high = number(confirmed.lows[-1]), number(confirmed.highs[-1])
        text += f" The best confirmed value is {number(confirmed.values[-1])}, 95 % interval {low} to {high}."
    return text


# ---------------------------------------------------------------------------------------------------------------------
# The funnel


def funnel(material: RunMaterial) -> str:
    """Return what became of the candidates, a bar for each step."""
    if not material.generated:
        return section("funnel", "The funnel", '<p class="gap">No candidate has been generated yet.</p>\n')
    rows = []
    for step in material.funnel:
        share = 100 * step.entered / material.generated
        note = f" <small>{said(step.note)}</small>" if step.note else ""
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in step.dropped if count)
        end = f'<p class="why">went no further: {said(dropped)}</p>\n' if dropped else ""
        rows.append(
            f"<li><p><strong>{said(step.name)}</strong>{note} <span>{step.entered:,}</span></p>\n"
            f'<div class="bar" aria-hidden="true"><div style="width:{share:.2f}%"></div></div>\n{end}</li>\n'
        )
    words = (
        "How many candidates came to each step, and why the others did not. Bars are shares of those generated. A "
        "candidate that does what an earlier one did takes its scores and is not trained."
    )
    return section("funnel", "The funnel", f'{paragraph(words)}<ol class="funnel">\n{"".join(rows)}</ol>\n')


# ---------------------------------------------------------------------------------------------------------------------
# Who is ahead


def leaderboard(material: RunMaterial) -> str:
    """Return the best candidates of the search, and the winner beside baselines under the same budget."""
    if not material.leaders:
        return section("leaderboard", "Leaderboard", '<p class="gap">No candidate has a value.</p>\n')
    heads = ["candidate", "place", "stage", "confirmed value", "at first sight", "statements", "made by", "alike"]
    rows = [_leader(row) for row in material.leaders]
    table_of_leaders = shown_table("The best candidates of the search", heads, rows)
    words = (
        "Of candidates that differ by no more than a rescaling of the learning rate, the best stands for all; "
        "“alike” counts those that do the same. Confirmed values rest on fresh seeds, with a 95 % interval; of many "
        "such values the best is still a little flattered, so the comparison with baselines is made anew. Who came "
        "further stands higher, then who is confirmed, then who has the lower bound."
    )
    body = f"{table_of_leaders}{paragraph(words)}{_archive(material)}{_baselines(material)}"
    return section("leaderboard", "Leaderboard", body)


def _archive(material: RunMaterial) -> str:
    kept = material.archive
    return "" if kept is None else shown_table(kept.caption, kept.heads, kept.rows) + paragraph(kept.note)


def _leader(row: Leader) -> list[str]:
    name = f"{row.number}, {row.what}" if row.what else str(row.number)
    confirmed = "not confirmed"
    if row.confirmed is not None:
        confirmed = f"{number(row.confirmed.value)} ({number(row.confirmed.low)} to {number(row.confirmed.high)})"
    length = "–" if row.statements is None else f"{row.statements:,}"
    cells = [name, f"{row.place:,}", str(row.stage), confirmed, number(row.first), length, row.mutation]
    return [*cells, f"{row.alike:,}"]


def _baselines(material: RunMaterial) -> str:
    if not material.evidence:
        return '<p class="gap">Nothing was retested yet, so there is no comparison with baselines.</p>\n'
    parts = []
    for task in dict.fromkeys(row.task for row in material.evidence):
        rows = [row for row in material.evidence if row.task == task]
        ranked = sorted(rows, key=lambda row: (row.loss is None, row.loss.value if row.loss else 0.0))
        heads = ["program", "test loss", "training loss", "peak learning rate", "weight decay"]
        steps = f", {material.horizons[task]:,} steps" if task in material.horizons else ""
        caption = f"{task}{steps}: same trials, same fresh seeds, same budget"
        parts.append(shown_table(caption, heads, [_program(row) for row in ranked]))
    edge = any(row.at_edge for row in material.evidence)
    note = "* the best trial lies at the edge of the tuning box: more tuning may improve this program. " if edge else ""
    return "".join(parts) + paragraph(f"{note}Means over fresh seeds with 95 % intervals; the lowest loss first.")


def _program(row: Evidence) -> list[str]:
    lost = f"diverged ({row.diverged} of {row.seeds})"
    return [
        row.program,
        lost if row.loss is None else _mean(row.loss),
        "–" if row.train_loss is None else _mean(row.train_loss),
        f"{row.learning_rate:.3g}{'*' if row.at_edge else ''}",
        "–" if row.weight_decay is None else f"{row.weight_decay:.3g}",
    ]


def _mean(estimate: Estimate) -> str:
    half = (estimate.high - estimate.low) / 2
    return f"{number(estimate.value, 4)} ± {number(half, 2)}" + (
        f" ({percent(half / estimate.value)})" if estimate.value > 0 else ""
    )
