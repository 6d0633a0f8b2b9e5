"""The kinds of values in a configuration, as pydantic checks them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Metric = Literal["loss", "train_loss"]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
SEEDS_OF_STAGES = 10_000
"""Seeds below this are for the stages of the search, those from here on for the steps after it."""

CONFIRMATION_SEEDS = 5 * SEEDS_OF_STAGES
"""Seeds of confirmations count from here, and from the seed of the run."""

StageSeed = Annotated[int, Field(strict=True, ge=0, lt=SEEDS_OF_STAGES)]
Count = Annotated[int, Field(strict=True, ge=1)]
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Device = Annotated[str, Field(strict=True)]

STRICT = ConfigDict(extra="forbid")
"""An unknown key is a typing error."""


def check_task(name: str) -> None:
    """Raise ValueError, naming the known ones, unless there is a task of this name."""
    from evolion.proxies.registry import get_spec

    get_spec(name)
