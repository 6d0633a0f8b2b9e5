"""What may change when a run goes on: a larger budget, what its workers are made of, and who proposes programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evolion.config import RunConfig
from evolion.config_text import to_toml, with_overrides
from evolion.confirmations import confirmation_seeds
from evolion.errors import ConfigError, RunError
from evolion.proposals import check_proposer
from evolion.run_files import CONFIG, write_atomically
from evolion.store import RunStore

__all__ = ["continued_config", "extend"]

_OUTDATED = ("winner", "table", "ablation")
"""Records of the end of a run that goes on beyond it."""


def continued_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration with which a run goes on.

    Args:
        config: That of the run.
        overrides: KEY=VALUE pairs; `search.budget` may grow, `workers` and `proposer` may be others.

    Raises:
        ConfigError: If an override changes anything else, or makes the budget smaller.
        InputError: If a library that another proposer needs is not installed.

    """
    wanted = with_overrides(config, overrides)
    search = replace(wanted.search, budget=config.search.budget)
    if replace(wanted, search=search, workers=config.workers, proposer=config.proposer) != config:
        raise ConfigError(
            "--set: a run that was begun goes on as it was begun; only search.budget may grow and workers.… and "
            "proposer.… may change (for anything else fork it: evolion fork DIR:NUMBER --out OTHER)"
        )
    if wanted.search.budget < config.search.budget:
        raise ConfigError(
            f"search.budget: the run has {config.search.budget:,}, it cannot shrink to {wanted.search.budget:,}"
        )
    if wanted.proposer != config.proposer:
        check_proposer(wanted)
    return wanted


def extend(folder: Path | str, config: RunConfig) -> None:
    """Let a run go on with another configuration out of `continued_config`.

    What hung on the end of the smaller budget is forgotten: the confirmations that it brought forward, the winner, its
    table and the scores of the retest, as programs that do the same up to rounding share theirs and the first one
    stays. Scores of the search stay.

    Raises:
        RunError: If the run cannot be opened for writing, or was given an even larger budget meanwhile.

    """
    with RunStore.open(folder) as store:
        old = store.config
        if config == old:
            return
        if config.search.budget < old.search.budget:
            raise RunError(f"another process has given the run {folder} a budget of {old.search.budget:,} just now")
        with store.transaction():
            store.put_config(to_toml(config, store.environment))
            if config.search.budget > old.search.budget:
                store.forget_confirmations(max(1, old.search.budget - old.search.lag))
                for name in _OUTDATED:
                    store.forget_record(name)
                store.kept_scores.keep_seeds({confirmation_seeds(config), *(stage.seeds for stage in config.stages)})
                store.event("extended", {"from": old.search.budget, "to": config.search.budget})
        write_config(store)


def write_config(store: RunStore) -> None:
    """Bring `config.toml` to what the database says.

    Raises:
        RunError: If it cannot be written.

    """
    path = store.folder / CONFIG
    try:
        write_atomically(path, store.get_config())
    except OSError as error:
        raise RunError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from None
