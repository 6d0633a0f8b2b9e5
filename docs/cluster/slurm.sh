#!/usr/bin/env bash
# A search on SLURM: a Ray head on the first node, a worker on every other one, the driver beside the head.
#   RUN=/shared/runs/big CONFIG=my.toml sbatch docs/cluster/slurm.sh
# A preempted or requeued job, or the same command once more, goes on where the run was.
#SBATCH --job-name=evolion
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=evolion-%j.log
#SBATCH --signal=B:INT@180
# For GPUs: #SBATCH --gpus-per-node=4, and a table [[workers]] in the configuration.
set -euo pipefail

RUN=${RUN:?the run folder, on a disk that every node sees}
CONFIG=${CONFIG:-}
PORT=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}
SCRIPTS=${SCRIPTS:-$SLURM_SUBMIT_DIR/docs/cluster}

# Every process of the cluster must know the token; the file is readable by its owner alone.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$RUN.token}
export RAY_worker_niceness=0 RAY_USAGE_STATS_ENABLED=0
mkdir -p "$(dirname "$RUN")"
if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
    (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}'):$PORT
export RAY_ADDRESS=$address

# A node that was cut off ends its Ray for good, so each is started again as long as the job lasts.
supervised() {
    local node=$1
    shift
    exec srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap --export=ALL \
        bash -c 'while :; do ray start --block "$@" || true; sleep 5; done' ray "$@"
}

started=()
# shellcheck disable=SC2329 # by the trap
stop() {
    trap - EXIT
    kill "${started[@]}" 2>/dev/null || true
    wait "${started[@]}" 2>/dev/null || true
}
trap stop EXIT

cpus=${SLURM_CPUS_PER_TASK:-1}
supervised "$head" --head --node-ip-address="${address%:*}" --port="$PORT" --num-cpus="$cpus" --include-dashboard=false &
started+=("$!")
for node in "${nodes[@]:1}"; do
    supervised "$node" --address="$address" --num-cpus="$cpus" &
    started+=("$!")
done

for attempt in {1..60}; do
    ray status --address="$address" >/dev/null 2>&1 && break
    [[ $attempt -lt 60 ]] || { echo "no Ray at $address after five minutes" >&2; exit 1; }
    sleep 5
done

# The driver follows the nodes as they come and go. It runs in the background so that the signal before the end of the
# job's time reaches it at once: it stops, and the job is queued again.
driver=
interrupted=
# shellcheck disable=SC2329 # by the trap
forward() {
    interrupted=1
    [[ -z $driver ]] || kill -INT "$driver" 2>/dev/null || true
}
trap forward INT TERM
set -m # without it a job in the background would ignore the signal
bash "$SCRIPTS/run.sh" "$RUN" ${CONFIG:+"$CONFIG"} &
driver=$!
status=0
wait "$driver" || status=$?
if [[ -n $interrupted ]]; then
    wait "$driver" || status=$?
    scontrol requeue "$SLURM_JOB_ID" || true
fi
exit "$status"
