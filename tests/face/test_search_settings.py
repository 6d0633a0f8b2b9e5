from dataclasses import asdict

import pytest

from evolion.config import RunConfig, program_of
from evolion.config_text import read_config
from evolion.errors import ConfigError
from evolion.search.adaptation import AdaptationSettings, Adaptive, credits_of
from evolion.search.islands import IslandSettings
from evolion.search.restarts import RestartSettings
from evolion.search_settings import algorithm_of, settings_of

SEED = program_of("adamw_seed")


def test_the_defaults_of_the_search_are_those_of_a_configuration() -> None:
    """Who makes an algorithm in Python gets what a configuration gives, and documentation needs to say it once."""
    search = RunConfig().search
    assert asdict(search.restarts) == asdict(RestartSettings())
    assert asdict(search.islands) == asdict(IslandSettings())
    assert asdict(search.adaptation) == asdict(AdaptationSettings())


def test_restarts_islands_and_adaptation_reach_the_search() -> None:
    """The search does what the configuration says."""
    overrides = ["restarts.patience=77", "restarts.start=best", "islands.count=3", "islands.interval=5"]
    config = read_config(None, [f"search.{override}" for override in overrides])
    settings = settings_of(config, SEED)
    assert settings.restarts == RestartSettings(77, "best")
    assert settings.islands == IslandSettings(3, 5)
    assert settings.adaptation is None


def test_mutations_adapt_only_if_told() -> None:
    """The weights of a run are the configured ones unless it says otherwise, and then start from them."""
    overrides = ["search.adaptation.floor=0.5", "search.mutations.insert=3", "search.mutations.scale=1"]
    assert not isinstance(algorithm_of(read_config(None, overrides), SEED), Adaptive)
    algorithm = algorithm_of(read_config(None, [*overrides, "search.adapt_mutations=true"]), SEED)
    assert isinstance(algorithm, Adaptive)
    assert algorithm.settings == AdaptationSettings(floor=0.5)
    assert [(credit.mutation, credit.weight) for credit in credits_of(algorithm.initial())] == [
        ("insert", 0.5),
        ("delete", 1 / 6),
        ("modify", 1 / 6),
        ("scale", 1 / 6),
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=restarts", "restarts.patience=32"], r"restarts.patience \(32\) must be larger than lag \(32\)"),
        (["algorithm=islands", "islands.count=6"], "100 seats on 6 islands are 16 on each"),
        (["islands.count=1"], "search.islands.count: .*greater than or equal to 2, got 1"),
        (["restarts.start=worst"], "search.restarts.start: .*'seed', 'best' or 'alternate'"),
        (["adaptation.floor=2.0"], "search.adaptation.floor: .*less than or equal to 1"),
        (["adaptation.windw=5"], "did you mean 'window'"),
    ],
)
def test_what_cannot_run_is_refused(overrides: list[str], message: str) -> None:
    """One line that names the key, before a run is begun."""
    with pytest.raises(ConfigError, match=message):
        read_config(None, [f"search.{override}" for override in overrides])


def test_settings_of_other_algorithms_are_no_obstacle() -> None:
    """A configuration goes from one algorithm to another by one key: what only some need is checked only for those."""
    read_config(None, ["search.restarts.patience=5", "search.islands.count=90"])
