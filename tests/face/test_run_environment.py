from dataclasses import replace
from typing import Any

import pytest
from stub_evaluator import StubEvaluator, stub_config

from evolion.config import WorkersConfig
from evolion.evaluators import factory
from evolion.run_environment import open_evaluator


def test_a_run_that_goes_on_asks_for_machines_like_those_that_began_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which machine of a mixed cluster answers first must not decide whether a run can be resumed."""
    told: list[Any] = []

    def make_evaluator(*_: object, numerics: object, **__: object) -> StubEvaluator:
        told.append(numerics)
        return StubEvaluator()

    monkeypatch.setattr(factory, "make_evaluator", make_evaluator)
    plain = stub_config()
    stages = (*plain.stages[:-1], replace(plain.stages[-1], device="gpu"))
    config = replace(plain, stages=stages, workers=(WorkersConfig(), WorkersConfig(device="gpu", gpus=1.0)))
    begun = {"numerics": "one", "numerics of gpu": "another", "python": "3.11"}
    for known in (None, {"python": "3.11"}, begun):
        with open_evaluator(None, None, "auto", None, config, known):
            pass
    assert told == [{}, {}, {"": "one", "gpu": "another"}]
