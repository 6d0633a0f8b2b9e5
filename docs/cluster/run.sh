#!/usr/bin/env bash
# Begin a run, or go on with the one that its folder holds: what a scheduler starts again after a preemption.
# Usage: run.sh RUN_FOLDER [CONFIG.toml] [options of evolion search]
set -euo pipefail

run=${1:?usage: run.sh RUN_FOLDER [CONFIG.toml] [options]}
shift

if [[ -e $run/run.sqlite ]]; then
    exec evolion resume "$run" --ray auto --progress
fi
exec evolion search "$@" --out "$run" --ray auto --progress
