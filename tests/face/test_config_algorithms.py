from typing import get_args, get_type_hints

import pytest

import evolion
from evolion.config import SearchConfig
from evolion.config_text import read_config
from evolion.errors import ConfigError
from evolion.search.registry import ALGORITHMS
from evolion.search_settings import algorithm_of, settings_of


def test_every_algorithm_can_be_configured() -> None:
    """A row of the registry that no configuration can name is of no use, and no name leads nowhere."""
    assert set(get_args(get_type_hints(SearchConfig)["algorithm"])) == set(ALGORITHMS)
    for name in ALGORITHMS:
        config = read_config(overrides=[f"search.algorithm={name}"])
        algorithm = algorithm_of(config, evolion.known()["adamw_seed"])
        assert algorithm.ask(algorithm.initial(), 0, {}).program == evolion.known()["adamw_seed"]


def test_the_keys_reach_the_algorithms() -> None:
    """What is written in a configuration is what the search gets."""
    overrides = [
        'search.pareto.objectives=["time"]',
        'search.quality_diversity.descriptors=["reach", "memory"]',
        "search.constants.generations=7",
        "search.lag=9",
    ]
    settings = settings_of(read_config(overrides=overrides), evolion.known()["adamw_seed"])
    assert settings.objectives == ("time",)
    assert settings.descriptors == ("reach", "memory")
    assert settings.constants.generations == 7
    assert settings.lag == 9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('search.pareto.objectives=["speed"]', "'statements', 'memory' or 'time', got 'speed'"),
        ('search.pareto.objectives=["time", "time"]', "objectives holds time twice"),
        ('search.pareto.objective=["time"]', "did you mean 'objectives'"),
        ('search.quality_diversity.descriptors=["reach", "reach"]', "descriptors holds reach twice"),
        ("search.quality_diversity.descriptors=[]", "at least 1 item"),
        ("search.constants.share=1.0", "less than 1, got 1.0"),
        ("search.constants.step=0.0", "greater than 0"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_error(override: str, message: str) -> None:
    """Nobody finds out after an hour that an axis was misspelt."""
    with pytest.raises(ConfigError, match=message):
        read_config(overrides=[override])
