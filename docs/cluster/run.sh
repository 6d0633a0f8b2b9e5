#!/usr/bin/env bash
# Begin a run, or go on with the one that its folder holds: what a scheduler starts again after a preemption.
# Usage: [WORKERS=N] run.sh RUN_FOLDER [CONFIG.toml] [options of evolion search]
# Without WORKERS there are as many as fit; with it a cluster that scales itself grows until they do.
set -euo pipefail

run=${1:?usage: run.sh RUN_FOLDER [CONFIG.toml] [options]}
shift
workers=(${WORKERS:+--workers "$WORKERS"})

if [[ -e $run/run.sqlite ]]; then
    exec evolion resume "$run" --ray auto "${workers[@]}" --progress
fi
exec evolion search "$@" --out "$run" --ray auto "${workers[@]}" --progress
