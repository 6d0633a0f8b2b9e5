import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evolion
from evolion.config import (
    SEEDS_OF_STAGES,
    AblationConfig,
    ConfirmationConfig,
    MutationWeights,
    RetestConfig,
    RetestTask,
    RunConfig,
    SearchConfig,
    StageConfig,
    WorkersConfig,
    program_of,
)
from evolion.config_text import from_toml, read_config, to_toml
from evolion.errors import ConfigError
from evolion.funnel import algorithm_of
from evolion.primitives.ops import VOCABULARIES
from evolion.proxies.registry import TASKS
from evolion.search.mutation import MUTATIONS, MutationConfig

numbers = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False, allow_nan=False)
tasks = st.sampled_from(sorted(TASKS))
steps = st.none() | st.integers(1, 10**6)
metrics = st.sampled_from(["loss", "train_loss"])
# What an editor may put in a program text or a path, line breaks and quotes included.
specs = st.text(st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=("Cs",)), min_size=1)
seeds = st.lists(st.integers(0, SEEDS_OF_STAGES - 1), min_size=1, max_size=4, unique=True).map(tuple)
rates = st.none() | st.lists(numbers, min_size=1, max_size=4, unique=True).map(tuple)


def task_of(row: RetestTask) -> str:
    return row.task


def stages(hurdle: st.SearchStrategy[Any]) -> st.SearchStrategy[StageConfig]:
    return st.builds(
        StageConfig, task=tasks, steps=steps, seeds=seeds, learning_rates=rates, metric=metrics, hurdle=hurdle
    )


weights = st.floats(0, 1e300)
workers = st.builds(
    WorkersConfig,
    count=st.none() | st.integers(1, 10**6),
    cpus=st.floats(0.01, 1.0),
    gpus=st.sampled_from([0.0, 0.25, 1.0, 8.0]),
    resources=st.dictionaries(specs, st.integers(0, 100).map(float), max_size=3),
    platform=st.none() | specs,
    batch=st.none() | st.integers(1, 10**4),
) | st.builds(WorkersConfig, tpus=st.sampled_from([1, 2, 4, 8]))
configs = st.builds(
    RunConfig,
    seed=st.integers(0, 2**31 - 1),
    timeout=numbers,
    memory=st.integers(0, 10**6),
    search=st.builds(
        SearchConfig,
        algorithm=st.sampled_from(["regularized-evolution", "random", "constants-only"]),
        warm_start=specs,
        budget=st.integers(1, 10**9),
        lag=st.integers(1, 1000),
        population=st.integers(10, 1000),
        tournament=st.integers(1, 10),
        maximum_statements=st.integers(1, 4096),
        vocabulary=st.sampled_from(sorted(VOCABULARIES)),
        mutations=st.builds(MutationWeights, **dict.fromkeys(MUTATIONS, weights) | {"insert": numbers}),
    ),
    stages=st.tuples(stages(st.none()), stages(st.floats(0.001, 1.0))) | st.tuples(stages(st.none())),
    confirmation=st.builds(
        ConfirmationConfig, share=st.floats(0.0, 1.0), seeds=st.integers(2, 100), standard_errors=weights
    ),
    retest=st.builds(
        RetestConfig,
        finalists=st.integers(1, 100),
        baselines=st.lists(specs, max_size=3).map(tuple),
        tasks=st.lists(
            st.builds(RetestTask, task=tasks, steps=steps, metric=metrics), min_size=1, max_size=3, unique_by=task_of
        ).map(tuple),
    ),
    ablation=st.builds(AblationConfig, enabled=st.booleans(), tolerance=weights),
    workers=st.tuples(workers),
)


@given(configs)
def test_toml_gives_the_configuration_back(config: RunConfig) -> None:
    """What a run writes down is exactly what it was started with, whatever the values."""
    text = to_toml(config, {"jax": "1.2", "device": "cpu"})
    assert from_toml(text) == config
    assert tomllib.loads(text)["environment"] == {"jax": "1.2", "device": "cpu"}


def test_every_mutation_has_a_weight() -> None:
    """What the search room can do is in reach of a configuration; only the paper's three mutations have weight."""
    fields = [field.name for field in dataclasses.fields(MutationWeights)]
    assert fields == list(MUTATIONS)
    defaults = dataclasses.asdict(MutationWeights())
    assert tuple((name, weight) for name, weight in defaults.items() if weight) == MutationConfig().weights


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_vocabulary_and_weights_reach_the_search(vocabulary: str) -> None:
    """The search draws from what the configuration names."""
    config = read_config(None, [f"search.vocabulary={vocabulary}", "search.mutations.crossover=3"])
    algorithm = algorithm_of(config, program_of("adamw_seed"))
    assert algorithm.mutation.vocabulary == VOCABULARIES[vocabulary]
    assert algorithm.mutation.weight("crossover") == 3.0


def test_defaults_need_no_file() -> None:
    """`evolion search --out DIR` works as it is."""
    assert read_config() == RunConfig() == from_toml("")


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    """--set changes values in tables and lists, over the file's; --seed comes last."""
    path = tmp_path / "config.toml"
    path.write_text('seed = 3\n[search]\nbudget = 7\nlag = 2\n[[stages]]\ntask = "digits-cnn"\n')
    overrides = ["search.budget=9", "stages.0.steps = 50", "search.mutations.insert=2", "search.algorithm=random"]
    config = read_config(path, [*overrides, "stages.0.learning_rates=[0.1, 1]"], seed=5)
    assert (config.seed, config.search.budget, config.search.lag) == (5, 9, 2)
    assert config.stages == (StageConfig("digits-cnn", steps=50, learning_rates=(0.1, 1.0)),)
    assert config.search.mutations.insert == 2.0
    assert config.search.algorithm == "random"


BAD_OVERRIDES = {
    "no.such.key=1": "'no'",
    "search.lagg=2": "did you mean 'lag'",
    "search.mutations.inser=2": "did you mean 'insert'",
    "stages.0.taks='digits-mlp'": "did you mean 'task'",
    "search.lag=0": "search.lag",
    "search.lag='3'": "search.lag",
    "search.lag=true": "search.lag",
    "search.budget=1.5": "search.budget",
    "search.algorithm=randm": "search.algorithm",
    "search.tournament=1000": "tournament",
    "search.vocabulary=hero": "search.vocabulary",
    "search=3": "search",
    "search.budget.x=1": "search.budget is a value",
    "search.mutations={insert=0, delete=0, modify=0}": "mutation",
    "seed=-1": "seed",
    "timeout=inf": "timeout",
    "memory=-1": "memory",
    "memory=0.5": "memory",
    "stages=[]": "stages",
    "stages=[{steps=3}]": "task",
    "stages.7.steps=1": "positions",
    "stages.x.steps=1": "positions",
    "stages.0.task=digits": "digits-mlp",
    "stages.0.hurdle=0.5": "hurdle",
    "stages=[{task='zipf-lm'}, {task='zipf-lm'}]": "hurdle",
    "stages.0.seeds=[]": "seeds",
    "stages.0.seeds=[1, 1]": "twice",
    "stages.0.seeds=[10000]": "stages.0.seeds",
    "confirmation.shre=0.1": "did you mean 'share'",
    "confirmation.share=1.5": "confirmation.share",
    "confirmation.seeds=1": "confirmation.seeds",
    "confirmation.standard_errors=-1": "confirmation.standard_errors",
    "retest.tasks=[{task='zipf-lm'}, {task='zipf-lm'}]": "twice",
    "stages.0.learning_rates=[nan]": "learning_rates",
    "ablation.enabled=1": "ablation.enabled",
    "search.warm_start=[": "TOML",
    "workers=[]": "no class of workers without a device",
    "workers=[{}, {}]": "two classes of workers for the default device",
    "workers=[{}, {device='a'}, {device='a'}]": "two classes of workers for device 'a'",
    "workers.0.device=gpu": "no class of workers without a device",
    "workers.0.gpu=1": "did you mean 'gpus'",
    "workers.0.count=0": "workers.0.count",
    "workers.0.cpus=-1": "workers.0.cpus",
    "workers.0.cpus=0": "takes nothing",
    "workers.0.gpus=1.5": "1.5 gpus",
    "workers.0.tpus=3": "3 chips of a TPU: a process has 1, 2, 4, 8",
    "workers=[{gpus=1, tpus=1}]": "GPUs and chips of a TPU",
    "workers.0.batch=0": "workers.0.batch",
    "workers.0.resources.slots=-1": "workers.0.resources.slots",
    "workers.0.resources.GPU=1": "keys of their own",
    "stages.1.device=gpu": "stages.1 names the device 'gpu', for which there are no workers",
    "seed=1\nsearch=2": "one value",
    "seed": "KEY=VALUE",
    "=1": "KEY=VALUE",
    "a..b=1": "KEY=VALUE",
}


@pytest.mark.parametrize(("override", "word"), BAD_OVERRIDES.items(), ids=BAD_OVERRIDES)
def test_bad_overrides_are_named_in_one_line(override: str, word: str) -> None:
    """A typing error is answered with the key, what is wrong and what is near."""
    with pytest.raises(ConfigError) as caught:
        read_config(None, [override])
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--set" in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    """A file that is missing, no TOML or wrong inside is named with the fault."""
    bad = {"syntax.toml": b"seed = = 2", "key.toml": b"sede = 2", "binary.toml": b"\xff\xfe\x00"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name in [*bad, "missing.toml", "."]:
        with pytest.raises(ConfigError) as caught:
            read_config(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_fingerprint_follows_what_determines_the_result() -> None:
    """Equal configurations share a fingerprint; any change, of a nested value too, gives another."""
    config = RunConfig()
    changed = [
        dataclasses.replace(config, seed=1),
        dataclasses.replace(config, search=SearchConfig(mutations=MutationWeights(insert=2.0))),
        dataclasses.replace(config, confirmation=ConfirmationConfig(share=0.0)),
        dataclasses.replace(config, ablation=AblationConfig(enabled=False)),
    ]
    assert RunConfig().fingerprint() == config.fingerprint()
    assert len({one.fingerprint() for one in [config, *changed]}) == len(changed) + 1


def test_workers_belong_to_the_machine_and_the_device_of_a_stage_does_not() -> None:
    """A run may be resumed with other workers; who trains a stage decides its scores."""
    config = RunConfig()
    elsewhere = dataclasses.replace(config, workers=(WorkersConfig(count=3, gpus=0.5, batch=64),))
    assert elsewhere.determining() == config == config.determining()
    assert elsewhere.fingerprint() == config.fingerprint()
    two = (WorkersConfig(), WorkersConfig("gpu", gpus=1.0))
    mixed = dataclasses.replace(config, workers=two, stages=(*config.stages[:2], StageConfig("zipf-lm", hurdle=0.5)))
    on_gpu = dataclasses.replace(mixed, stages=(*mixed.stages[:2], StageConfig("zipf-lm", hurdle=0.5, device="gpu")))
    assert mixed.fingerprint() == config.fingerprint()
    assert len({config.fingerprint(), on_gpu.fingerprint()}) == 2
    assert on_gpu.determining().determining() == on_gpu.determining()
    assert [on_gpu.device_of(task) for task in ("digits-mlp", "zipf-lm", "digits-cnn")] == ["", "gpu", ""]


def test_pinned_configurations_need_no_other_file(tmp_path: Path) -> None:
    """A run keeps the text of a program that was given by its path, and the names of known ones."""
    path = tmp_path / "mine.txt"
    path.write_text("def train(w, g, lr):\n    return g * lr\n")
    pinned = RunConfig(search=SearchConfig(warm_start=str(path))).pinned()
    path.unlink()
    assert program_of(pinned.search.warm_start) == evolion.parse("def train(w, g, lr):\n    return g * lr\n")
    assert pinned.retest.baselines == ("adamw", "lion")
    assert from_toml(to_toml(pinned)).pinned() == pinned
    with pytest.raises(ConfigError, match=r"search\.warm_start.*mine"):
        RunConfig(search=SearchConfig(warm_start=str(path))).pinned()


def test_programs_of_curvature_can_be_baselines(tmp_path: Path) -> None:
    """Every task gives an estimate of the Hessian, so a program that reads it is one like others."""
    path = tmp_path / "newton.txt"
    path.write_text("def train(g, hess, lr):\n    return lr * g / hess\n")
    baselines = RunConfig(retest=RetestConfig(baselines=(str(path), "sophia_h"))).pinned().retest.baselines
    assert baselines == (str(evolion.parse(path.read_text())), "sophia_h")
