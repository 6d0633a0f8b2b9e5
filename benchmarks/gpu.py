"""What a batch of candidates costs on an accelerator: against the floor, and against one candidate at a time.

The floor of a training step is two things: its gradients, in floating-point operations at the rate of a large matrix
product, and its updates, in bytes at the rate of a large copy; both rates are measured in the same process. The bytes
are those of the rows that a program must read and write (weights, gradient and slots; weights and slots), once each.

    python benchmarks/gpu.py [--smoke] [--lanes N] [--steps N] [--candidates N]
    python benchmarks/gpu.py --compile-for h100|v5e [--lanes N]

Runs on jax's first device. Where that is a CPU it says so: then it is a check of this file, not of a machine.

`--compile-for` compiles the loops for a chip that need not be there, by its own compiler. It takes, for an H100, the
wheels jax-cuda12-plugin, jax-cuda12-pjrt and nvidia-cuda-nvcc-cu12, JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 and
XLA_FLAGS='--xla_gpu_cuda_data_dir=…/nvidia/cuda_nvcc --xla_gpu_autotune_level=0'; for a v5e the wheel libtpu and
TPU_SKIP_MDS_QUERY=1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from evolion.discovered.library import known
from evolion.evaluators.batch.device import Device, device, lanes_of
from evolion.evaluators.batch.evaluate import evaluate_jobs
from evolion.evaluators.batch.gate import GATE_PROGRAMS, gate
from evolion.evaluators.batch.kernel import TARGETS, names_of, takes
from evolion.evaluators.batch.loop import compiled_for, updates
from evolion.evaluators.batch.programs import CAPACITIES, PASSES, Capacity, Shape, arrange, capacity_of, lane_program
from evolion.evaluators.encoding import CapacityError, encode
from evolion.evaluators.evaluate import evaluate_compiled
from evolion.evaluators.factory import make_evaluator
from evolion.evaluators.loop import flat_task
from evolion.evaluators.types import Job
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.program import Program
from evolion.search.mutation import MutationConfig, mutate

TASK = "digits-mlp"
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
REPEATS, COPIES = 5, 10


@dataclass(frozen=True, slots=True)
class Rates:
    """What the device reaches: bytes a second of a copy, operations a second of a product of matrices in float32."""

    bytes: float
    operations: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds on a CPU")
    parser.add_argument("--lanes", type=int, help="lanes of a batch (default 1024, on a CPU 16)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--one-by-one", type=int, help="how many of them are compiled and run one at a time")
    parser.add_argument("--compile-for", choices=("h100", "v5e"), help="compile for a chip that need not be there")
    given = parser.parse_args()
    if given.compile_for:
        compile_for(given.compile_for, given.lanes or 256)
        return
    used, first = device(given.lanes), jax.devices()[0]
    small = given.smoke or first.platform == "cpu"
    steps, count = given.steps or (20 if small else 500), given.candidates or (4 if small else 1024)
    alone = given.one_by_one or (2 if small else 16)
    path = f"kernel for {used.target.platform}" if used.target else "super-steps of plain XLA"
    print(f"jax {jax.__version__} on {first.platform} ({first.device_kind}), {path}")
    if first.platform == "cpu":
        print("this is a CPU: figures say nothing of an accelerator")
    rates = measured_rates(small)
    print(f"copy {rates.bytes / 1e9:.1f} GB/s, float32 product {rates.operations / 1e12:.3f} Tflop/s")
    programs = children(count)
    update(programs, used, rates, small)
    training(programs, used, rates, steps, alone)
    compare_devices(used, 40 if small else steps)


H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 } runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def compile_for(chip: str, lanes: int) -> None:
    """Compile the loop of each capacity for a chip."""
    jax.config.update("jax_platforms", "cpu")
    if chip == "h100":
        topology = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
    else:
        topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    target, flat = TARGETS["gpu" if chip == "h100" else "tpu"], flat_task(TASK)
    program = lane_program(encode(known()["adam"]))
    for capacity in CAPACITIES:
        if chip == "v5e":  # The kernel's sign asks for the generation of a chip that is there.
            capacity = replace(capacity, opcodes=tuple(n for n in capacity.opcodes if "sign" not in names_of(n)))
        kernel = target if takes(target, capacity.rows, ()) else None
        batch = arrange([program], lanes, capacity, 64, kernel=kernel is not None)
        start = time.perf_counter()
        made = compiled_for(topology.devices[0], flat, Shape(lanes, 1, capacity), kernel, batch, 500)
        seconds_taken, memory = time.perf_counter() - start, made.memory_analysis()
        print(f"{chip}, {lanes} lanes, {capacity.rows} rows, {len(capacity.opcodes)} instructions")
        print(f"  by {'kernel' if kernel else 'super-steps'}, compiled in {seconds_taken:.0f} s")
        print(f"  {(memory.temp_size_in_bytes if memory else 0) / 1e6:.0f} MB besides arguments")


def measured_rates(small: bool) -> Rates:
    """Measure the device with a copy and a product of matrices that are large for it."""
    size, side = (1 << 25, 512) if small else (1 << 29, 8192)
    vector, matrix = jnp.ones(size, jnp.float32), jnp.ones((side, side), jnp.float32)
    # In a loop, so that neither a launch nor fresh pages of memory are what is measured.
    copy = jax.jit(lambda x: jax.lax.fori_loop(0, COPIES, lambda _, x: x + 1.0, x))
    with jax.default_matmul_precision("highest"):
        product = jax.jit(lambda x: x @ x)
        operations = 2 * side**3 / seconds(lambda: product(matrix))
    return Rates(COPIES * 2 * 4 * size / seconds(lambda: copy(vector)), operations)


def seconds(run: Callable[[], Any]) -> float:
    """Return the median wall time of a call, after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def children(count: int) -> list[Program]:
    """Return different children of the warm start that a search would train and the first loop takes."""
    rng, found = np.random.default_rng(0), {}
    seed = known()["adamw_seed"]
    config = MutationConfig(maximum_statements=30).for_seed(seed)
    while len(found) < count:
        child, _ = mutate(seed, rng, config)
        result = probe(child)
        if result.status is ProbeStatus.OK and result.key not in found and capacity(child) is CAPACITIES[0]:
            found[result.key] = child
    return list(found.values())


def capacity(program: Program) -> Capacity | None:
    try:
        return capacity_of(lane_program(encode(program)), CAPACITIES)
    except CapacityError:
        return None


def rows_moved(programs: list[Program], lanes: int) -> int:
    """Return how many rows of parameters the programs of a batch must read or write at a step, all lanes together."""
    laid = [lane_program(encode(program)) for program in programs]
    batch = arrange(laid, lanes, CAPACITIES[0], 1, kernel=True)
    return int(sum(np.bitwise_count(batch.ranges[number, :, 2:].astype(np.uint32)).sum() for number in range(PASSES)))


def update(programs: list[Program], used: Device, rates: Rates, small: bool) -> None:
    """Print the update step of a batch against the bytes that it must move."""
    lanes, steps = lanes_of(used, TASK, 1, CAPACITIES[0]), 5 if small else 100
    filled = [programs[place % len(programs)] for place in range(lanes)]
    flat, shape = flat_task(TASK), Shape(lanes, 1, CAPACITIES[0])
    laid = [lane_program(encode(program)) for program in filled]
    batch = arrange(laid, lanes, CAPACITIES[0], used.slots, kernel=used.target is not None)
    run, arguments = updates(flat, shape, used.target, batch, steps)
    step = seconds(lambda: run(*arguments)) / steps
    floor = 4 * flat.layout.entries * rows_moved(filled, lanes) / rates.bytes
    print(f"\nupdate alone, {lanes} lanes of {TASK} ({flat.layout.entries} parameters), different children of AdamW")
    print(f"  {1e6 * step:.1f} µs a step, floor {1e6 * floor:.1f} µs: {floor / step:.1%} of the measured bandwidth")


def training(programs: list[Program], used: Device, rates: Rates, steps: int, alone: int) -> None:
    """Print whole evaluations against the floor, and against one compiled candidate at a time."""
    jobs = [Job(number, program, TASK, steps, (0,), RATES) for number, program in enumerate(programs)]
    evaluate_jobs(jobs[:1], used)  # the one compilation
    start = time.perf_counter()
    evaluate_jobs(jobs, used)
    batched = time.perf_counter() - start
    flat, runs = flat_task(TASK), len(jobs) * len(RATES)
    moved = 4 * flat.layout.entries * rows_moved(programs, len(programs)) * len(RATES) * steps
    operations = gradient_operations() * runs * steps
    floor = moved / rates.bytes + operations / rates.operations
    print(f"\n{len(jobs)} candidates at {len(RATES)} learning rates, {steps} steps of {TASK}")
    print(f"  floor {floor:.3f} s: {moved / 1e9:.2f} GB of rows, {operations / 1e9:.1f} Gflop of gradients")
    rate = len(jobs) / batched
    print(f"  batched {batched:.2f} s, floor over it {floor / batched:.1%}, {rate:.1f} candidates a second")
    first, again = [], []
    for job in jobs[:alone]:
        for times in (first, again):
            start = time.perf_counter()
            evaluate_compiled(job)
            times.append(time.perf_counter() - start)
    for name, times in (("compiled and run", first), ("run alone, compiled before", again)):
        each = statistics.median(times)
        print(f"  one at a time, {name}: {1 / each:.2f} candidates a second, batched {rate * each:.1f} times as many")


def gradient_operations() -> float:
    """Return the floating-point operations of one gradient, as XLA counts them."""
    flat = flat_task(TASK)
    batch = {name: leaf[: flat.task.batch_size] for name, leaf in flat.batches("train").items()}
    gradient = jax.jit(jax.grad(lambda weights, batch: flat.task.loss(flat.unravel(weights), batch)))
    analysis: Any = gradient.lower(flat.weights(0), batch).cost_analysis()
    return float(analysis["flops"])


def compare_devices(used: Device, steps: int) -> None:
    """Print whether scores of this device may be mixed with those of a worker on the CPU."""
    jobs = [Job(number, known()[name], TASK, steps, (0,), RATES) for number, name in enumerate(GATE_PROGRAMS)]
    ours = evaluate_jobs(jobs, used)
    if os.environ.get("JAX_PLATFORMS", "cpu") != "cpu":
        print("\nno comparison with a CPU: JAX_PLATFORMS is set, and workers take it over")
        return
    with make_evaluator(1) as evaluator:
        for job in jobs:
            evaluator.submit(job)
        theirs = {}
        while finished := evaluator.collect():
            theirs |= {job.number: score for job, score in finished}
        print(f"\n{used.numerics()}\nagainst {evaluator.numerics}")
    verdict = gate(
        dict(zip(GATE_PROGRAMS, ours, strict=True)), {name: theirs[n] for n, name in enumerate(GATE_PROGRAMS)}
    )
    print(f"  worst difference {verdict.worst:.2e}, rank correlation {verdict.correlation:.3f}")
    print(f"  {verdict.message or 'scores may be mixed'}")


if __name__ == "__main__":
    main()
