"""Sets of tasks: disjoint, frozen, and the looks at the locked one counted."""

import itertools
import json
from pathlib import Path

import pytest

from evolion.proxies.registry import get_spec, get_task
from evolion.proxies.sets import (
    LOCK,
    SETS,
    VARIANTS,
    check_lock,
    get_set,
    held_out_variants,
    looks,
    recipe_digest,
    record_look,
    set_digest,
)

LOCKED = json.loads(LOCK.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test counts a look of the user's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def families(name: str) -> set[str]:
    return {get_spec(task).family for task in get_set(name).tasks}


def test_sets_share_no_task() -> None:
    """What chooses programs has not been searched on, and what judges them has done neither."""
    for one, other in itertools.combinations(SETS.values(), 2):
        assert not set(one.tasks) & set(other.tasks), (one.name, other.name)


def test_search_is_four_tasks_of_three_families() -> None:
    """Small enough to score thousands of candidates, wide enough that one trick does not do."""
    assert len(get_set("search").tasks) == 4
    assert len(families("search")) == 3


def test_search_has_a_long_run_and_a_large_batch_on_transformers() -> None:
    """Sign methods keep their place only there: without such tasks a search would never return Lion."""
    transformers = [get_spec(task) for task in get_set("search").tasks if get_spec(task).family == "transformer"]
    assert max(spec.steps for spec in transformers) >= 2000
    assert max(spec.batch_size for spec in transformers) >= 256


def test_test_families_are_new() -> None:
    """At least six families that neither the search nor the choice of its programs has seen."""
    assert len(families("test")) >= 6
    assert not families("test") & (families("search") | families("validation"))
    assert get_set("test").locked


def test_validation_adds_families() -> None:
    """A program that only suits the families of the search is found out before the test."""
    assert families("validation") - families("search")


@pytest.mark.parametrize("name", SETS)
def test_the_lock_holds(name: str) -> None:
    """A task of a set never changes without the lock file saying so."""
    assert check_lock(name) == ()
    assert LOCKED["sets"][name].keys() == set(get_set(name).tasks)


def test_a_changed_recipe_breaks_the_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The check sees another recipe, a task more and a task less."""
    changed = json.loads(LOCK.read_text(encoding="utf-8"))
    first, second, *_ = get_set("search").tasks
    changed["sets"]["search"][first]["recipe"] = "0" * 64
    del changed["sets"]["search"][second]
    changed["sets"]["search"]["mnist"] = {"recipe": ""}
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    monkeypatch.setattr("evolion.proxies.sets.LOCK", path)
    assert [line.split(":")[0] for line in check_lock("search")] == [second, "mnist", first]


def test_the_data_of_the_search_set_is_that_of_the_lock() -> None:
    """Generated data has the digest that was frozen; text of installed packages has another with every version."""
    for task in get_set("search").tasks:
        if not get_spec(task).data.startswith(("docstrings", "glyphs")):
            assert get_task(task).digest == LOCKED["sets"]["search"][task]["data"], task


def test_digest_of_a_set_sees_its_horizons() -> None:
    """Two sets never share a digest."""
    assert len({set_digest(name) for name in SETS}) == len(SETS)
    assert recipe_digest("digits-mlp") != recipe_digest("digits-mlp:horizon=2")


def test_unknown_set_is_named() -> None:
    """A misspelt set is one line that says which are right."""
    with pytest.raises(ValueError, match=r"unknown set 'serch', did you mean 'search'\? \(known: smoke, search"):
        get_set("serch")


def test_looks_at_the_test_set_are_counted() -> None:
    """Each look at new programs counts, a resumed one does not, and other sets have no count."""
    assert [record_look("test", programs) for programs in (["a"], ["b"], ["b"], ["a", "c"])] == [1, 2, 2, 3]
    assert record_look("search", ["a"]) == 0
    assert [look["compared"] for look in looks()] == [["a"], ["b"], ["a", "c"]]


@pytest.mark.parametrize("line", ["{", "7", '{"set": "test"}'])
def test_a_damaged_count_is_named(tmp_path: Path, line: str) -> None:
    """What cannot be counted is one error with file and line; nothing is looked at then."""
    record_look("test", ["a"])
    path = tmp_path / "evolion" / "looks.jsonl"
    path.write_text(f"{path.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")
    with pytest.raises(OSError, match=r"looks\.jsonl, line 2: this is no look"):
        record_look("test", ["b"])


@pytest.mark.parametrize("name", SETS)
def test_every_variant_is_a_task(name: str) -> None:
    """What is drawn can be trained, also of tasks that have modifiers already."""
    for variant in held_out_variants(get_set(name).tasks, "", 10_000):
        assert get_spec(variant).name == variant


def test_variants_are_drawn_by_what_is_compared() -> None:
    """The same programs draw the same variants, others draw others, and each changes its task."""
    tasks = get_set("test").tasks
    drawn = held_out_variants(tasks, "programs", 8)
    assert drawn == held_out_variants(tasks, "programs", 8)
    assert drawn != held_out_variants(tasks, "other programs", 8)
    assert len(set(drawn)) == 8
    for name in drawn:
        assert get_spec(name).recipe() != get_spec(name.split(":")[0]).recipe()


@pytest.mark.parametrize("modifier", VARIANTS)
def test_every_variant_suits_some_task(modifier: str) -> None:
    """No rule of the public list is dead."""
    everything = held_out_variants([task for each in SETS.values() for task in each.tasks], "", 10_000)
    assert any(name.endswith(modifier) for name in everything)
