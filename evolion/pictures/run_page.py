"""The page of a run: one file that needs nothing but itself, for a phone, a screen and paper."""

from __future__ import annotations

from evolion.pictures.html import document, said
from evolion.pictures.looks import COLOURS, GREY, RULE, SHADE
from evolion.pictures.page_style import variable
from evolion.pictures.run_details import cost, lineage, mutations, program, reproduction
from evolion.pictures.run_material import RunMaterial
from evolion.pictures.run_sections import found, funnel, leaderboard, progress

__all__ = ["page"]

_SECTIONS = (found, progress, funnel, leaderboard, lineage, program, mutations, cost, reproduction)
_MENU = (
    ("found", "What was found"),
    ("progress", "Progress"),
    ("funnel", "The funnel"),
    ("leaderboard", "Leaderboard"),
    ("lineage", "Lineage"),
    ("program", "The program"),
    ("mutations", "Mutations"),
    ("cost", "Cost"),
    ("reproduction", "How to go on"),
)

_BLUE, _ORANGE, _GREEN = (f"var({variable(colour)})" for colour in (COLOURS[0], COLOURS[1], COLOURS[2]))

STYLE_SHEET = (
    """.lead{margin:.2rem 0}
.funnel,.steps{padding:0;list-style:none}
.funnel li{margin:.9rem 0;max-width:44rem}
.funnel p{display:flex;flex-wrap:wrap;gap:0 .6rem;margin:0}
.funnel p span{margin-left:auto;font-variant-numeric:tabular-nums}
.funnel .why{font-size:.9rem}
.bar{height:.7rem;background:var(--cSHADE);border-radius:.2rem;overflow:hidden}
.bar div{height:100%;min-width:1px;background:BLUE}
.step{margin:.6rem 0;padding:.3rem .8rem;border-left:.3rem solid var(--cGREY)}
.step p{margin:.2rem 0;max-width:none}
.step.better{border-color:GREEN}
.step.neutral{border-left-style:dotted}
.code{padding:.5rem .7rem;background:var(--cSHADE);font-size:.85rem;line-height:1.4;border-radius:.2rem;max-width:60rem}
.step .code{margin:.3rem 0}
.code ins,.code del{text-decoration:none;display:inline-block;min-width:100%}
.code ins{font-weight:bold;box-shadow:-.4rem 0 0 BLUE}
.code del{box-shadow:-.4rem 0 0 ORANGE}
details{margin:1rem 0}
summary{cursor:pointer;padding:.4rem 0;font-weight:bold}
dd .code{margin:.2rem 0}
small{font-size:.85rem}
th:first-child{overflow-wrap:break-word;min-width:7.5rem}
caption{max-width:calc(100vw - 2rem)}
@media (max-width:30rem){.code{font-size:.8rem}}
@media print{h2,h3,dt,caption{break-after:avoid}#reproduction{break-before:page}
h2{margin-top:1.2rem}.funnel li{margin:.4rem 0}.panels{grid-template-columns:1fr 1fr}table{font-size:8pt}
.step,.funnel li,.findings li,dd{break-inside:avoid}
.code{white-space:pre-wrap;font-size:8pt;border:1px solid var(--cRULE)}
.bar,.bar div,.findings li,.code{-webkit-print-color-adjust:exact;print-color-adjust:exact}
details::details-content{content-visibility:visible;height:auto;display:block}
summary{list-style:none}
.versions{columns:2}.versions dt{margin:0}caption{max-width:none}
@page{margin:14mm}}
""".replace("BLUE", _BLUE)
    .replace("ORANGE", _ORANGE)
    .replace("GREEN", _GREEN)
    .replace("--cSHADE", variable(SHADE))
    .replace("--cGREY", variable(GREY))
    .replace("--cRULE", variable(RULE))
)


def page(material: RunMaterial) -> str:
    """Return the page of a run. The same material gives the same text."""
    body = "".join(make(material) for make in _SECTIONS)
    lead = f'<p class="lead">Report of a search for an optimizer, run “{said(material.name)}”.</p>\n'
    return document(f"Run {material.name}", _MENU, body, style=STYLE_SHEET, lead=lead)
