import dataclasses

import numpy as np
import pytest

from evolion.proxies.data import provided as module
from evolion.proxies.data.provided import Splits, data_key, fingerprint, provide, provided
from evolion.proxies.data.source import DataError
from evolion.proxies.data.uri import open_source
from evolion.proxies.registry import TASKS, get_spec
from evolion.proxies.task import ModelTask

SPEC = get_spec("digits-mlp")


@pytest.fixture(autouse=True)
def nothing_provided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_supplies", {})
    monkeypatch.setattr(module, "_fingerprints", {})


def splits_of(task: ModelTask) -> Splits:
    return {split: dict(task.data(split)) for split in ("train", "validation", "test")}


def test_what_is_provided_is_used_without_a_copy() -> None:
    """A worker maps the arrays of its node: it neither opens the source nor copies."""
    made = splits_of(ModelTask(SPEC))
    calls = []

    def supply() -> Splits:
        calls.append(1)
        return made

    provide({data_key(SPEC): supply})
    task = ModelTask(dataclasses.replace(SPEC, data=SPEC.data))
    assert task.data("train")["inputs"] is made["train"]["inputs"]
    assert task.data("test")["targets"] is made["test"]["targets"]
    assert "source" not in vars(task)
    assert calls == [1]


def test_scores_are_those_of_the_arrays_that_a_task_makes_itself() -> None:
    """Where arrays come from changes no digest, so that no score hangs on it."""
    own = ModelTask(SPEC)
    made = {split: {name: np.array(array) for name, array in batch.items()} for split, batch in splits_of(own).items()}
    provide({data_key(SPEC): lambda: made})
    assert ModelTask(SPEC).digest == own.digest


def test_without_supply_a_task_makes_its_own() -> None:
    """A supply that has lost its arrays costs time and nothing else."""
    assert provided(SPEC) is None
    provide({data_key(SPEC): lambda: None})
    assert provided(SPEC) is None
    assert ModelTask(SPEC).digest == TASKS["digits-mlp"].digest


def test_what_a_task_makes_itself_is_what_the_driver_has() -> None:
    """A node with other files or another NumPy would train on other data: it says so instead of giving a score."""
    key, splits = data_key(SPEC), splits_of(ModelTask(SPEC))
    provide({}, {key: fingerprint(splits, "")})
    assert ModelTask(SPEC).digest == TASKS["digits-mlp"].digest
    provide({key: lambda: None}, {key: "0" * 64})
    with pytest.raises(DataError, match="the data 'digits:' is not here what it is for the driver: have"):
        ModelTask(SPEC).data("train")
    provide({key: lambda: splits})
    assert ModelTask(SPEC).digest == TASKS["digits-mlp"].digest


def test_large_data_is_known_by_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is larger than memory is not read from end to end by each worker before its first job."""
    splits = splits_of(ModelTask(SPEC))
    monkeypatch.setattr(module, "HASHED_BYTES", 1000)
    assert fingerprint(splits, "of the file") == "of the file"


def test_a_package_that_is_missing_is_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without Pillow is no reason to blame the programs that are sent there."""

    def without(*_: object) -> None:
        raise ImportError("No module named 'PIL'")

    monkeypatch.setattr("evolion.proxies.task.pools", without)
    with pytest.raises(DataError, match="needs a package that is not on this machine: No module named 'PIL'"):
        ModelTask(SPEC).data("train")


def test_data_of_ones_own_is_never_replaced() -> None:
    """A task over a given source trains on it, whatever was provided for the task of the catalogue."""
    provide({data_key(SPEC): lambda: pytest.fail("asked for")})
    assert ModelTask(SPEC, source=open_source(SPEC.data)).digest == TASKS["digits-mlp"].digest


def test_tasks_share_arrays_where_they_are_equal() -> None:
    """What decides the arrays is the key: nothing of the model, all of the data."""
    key = data_key(SPEC)
    assert data_key(get_spec("digits-mlp:width=2")) == key
    assert data_key(get_spec("zipf-lm")) != key
    for field, value in {"steps": 1, "batch_size": 3, "label_noise": 0.5, "data": "digits:?x"}.items():
        assert data_key(dataclasses.replace(SPEC, **{field: value})) != key
