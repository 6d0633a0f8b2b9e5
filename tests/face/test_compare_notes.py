"""What a comparison says besides its numbers."""

from pathlib import Path

from report_samples import sample

from evolion.compare import write_outputs
from evolion.discovered.library import known
from evolion.evaluators.protocol.plan import Manifest, make_plan
from evolion.evaluators.protocol.table import Table
from evolion.proxies.registry import SPECS


def test_tasks_that_are_not_for_ranking_are_named(tmp_path: Path) -> None:
    """Nobody takes the order on a diagnostic task for a ranking: the report names such tasks, and no others."""
    ranking = next(name for name, spec in SPECS.items() if spec.purpose == "ranking")
    _, rows = sample(("zipf-lm", ranking))
    with Table(tmp_path / "table.jsonl") as table:
        table.append(rows)
    plan = make_plan({"adamw": str(known()["adamw"])}, ("zipf-lm", ranking))
    found = write_outputs(Manifest(plan, {"zipf-lm": "d", ranking: "d"}), tmp_path)
    (said,) = [note for note in found.report.notes if note.startswith("diagnostic")]
    assert "zipf-lm" in said
    assert ranking not in said
