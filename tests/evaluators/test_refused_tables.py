"""Tables and options that cannot be scored."""

from dataclasses import replace

import pytest
from scoring_tables import runs

from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.protocol.scoring import RowsError, report


def twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[0]]


BROKEN = {
    "two rows have the id": twice,
    "both 'adamw' on 'lm'": lambda rows: [
        *rows,
        *(replace(r, id=f"{r.id} again") for r in rows if r.stage is Stage.REPORT),
    ],
    "differ in its digest": lambda rows: [replace(rows[0], task_digest="other"), *rows[1:]],
    "differ in its family": lambda rows: [replace(rows[0], family="other"), *rows[1:]],
    "differ in its floor": lambda rows: [replace(rows[0], floor=0.1), *rows[1:]],
    "renamed copy": lambda rows: [replace(rows[0], control="lion"), *rows[1:]],
    "no row in the table": lambda rows: [replace(r, optimizer="lion") for r in rows],
    "which has no rows": lambda rows: [],
}


@pytest.mark.parametrize("said", list(BROKEN))
def test_a_table_that_contradicts_itself_is_refused(said: str) -> None:
    """One error that names what is wrong: averaging over it would give numbers that mean nothing."""
    with pytest.raises(RowsError, match=said):
        report(BROKEN[said](runs("adamw", "lm")), reference="adamw")


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0.0}, {"draws": 0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    """A level of 95 instead of 0.95 is said."""
    with pytest.raises(ValueError, match="level must lie between"):
        report(runs("adamw", "lm"), reference="adamw", **options)  # type: ignore[arg-type]
