from dataclasses import replace

import pytest

from evolion.evaluators.worker_class import TPU_CHIPS, WorkerClass, check_classes, fitting


def test_what_a_worker_needs_is_said_by_the_names_of_ray() -> None:
    """The scheduler places a worker where all that it takes is free."""
    assert WorkerClass().needs() == {"CPU": 1.0}
    assert WorkerClass(cpus=0.5, gpus=0.25).needs() == {"CPU": 0.5, "GPU": 0.25}
    assert WorkerClass(cpus=0.0, tpus=4, resources={"slots": 2.0}).needs() == {"TPU": 4.0, "slots": 2.0}


@pytest.mark.parametrize(
    ("worker", "platform"),
    [
        (WorkerClass(), "cpu"),
        (WorkerClass(resources={"slots": 1.0}), "cpu"),
        (WorkerClass(gpus=1.0), "cuda"),
        (WorkerClass(tpus=1), "tpu"),
        (WorkerClass(gpus=1.0, platform="rocm"), "rocm"),
    ],
)
def test_only_those_with_an_accelerator_see_one(worker: WorkerClass, platform: str) -> None:
    """A worker on the CPU that found a GPU would reserve its memory; one with a GPU that found none must not go on."""
    for shared in ({}, {"JAX_PLATFORMS": "cpu"}, {"JAX_PLATFORMS": "cuda"}):
        assert worker.settings(shared)["JAX_PLATFORMS"] == platform


def test_a_share_of_a_gpu_is_a_share_of_its_memory() -> None:
    """jax takes three quarters of a GPU unless told otherwise: the second worker on it would find none."""
    share = WorkerClass(gpus=0.25)
    assert share.settings({"NPROC": "1"}) == {
        "NPROC": "1",
        "JAX_PLATFORMS": "cuda",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225",
    }
    own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert share.settings(own) == own | {"JAX_PLATFORMS": "cuda"}
    assert replace(share, gpus=1.0).settings({}) == {"JAX_PLATFORMS": "cuda"}


@pytest.mark.parametrize("chips", range(10))
def test_chips_come_as_a_host_divides_them(chips: int) -> None:
    """A process with three chips would wait for the fourth for ever."""
    if chips in TPU_CHIPS:
        assert WorkerClass(tpus=chips).tpus == chips
    else:
        with pytest.raises(ValueError, match=f"cannot take {chips} chips of a TPU"):
            WorkerClass(tpus=chips)


def test_classes_are_told_apart() -> None:
    """The name of a device leads to one class, and what names no device to one as well."""
    check_classes([WorkerClass(), WorkerClass("gpu", gpus=1.0)])
    with pytest.raises(ValueError, match="two classes of workers for device 'gpu'"):
        check_classes([WorkerClass(), WorkerClass("gpu"), WorkerClass("gpu")])
    with pytest.raises(ValueError, match="no class of workers without a device"):
        check_classes([WorkerClass("gpu")])


def test_workers_fill_what_others_leave() -> None:
    """Accelerators get the cores that they need before those that take nothing but cores take them all."""
    cpu, gpu = WorkerClass(), WorkerClass("gpu", gpus=0.5, cpus=2.0)
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 3.0}]
    assert fitting([cpu, gpu], nodes) == {"": 4 + 3, "gpu": 2}
    assert fitting([replace(cpu, count=9), gpu], nodes) == {"": 9, "gpu": 1}
    assert fitting([cpu, replace(gpu, count=1)], nodes) == {"": 6 + 3, "gpu": 1}


def test_a_worker_has_its_place_on_one_machine() -> None:
    """Halves of a place on two machines are none."""
    assert fitting([WorkerClass(cpus=2.0)], [{"CPU": 3.0}, {"CPU": 3.0}]) == {"": 2}
    assert fitting([WorkerClass(cpus=0.1)], [{"CPU": 1.0}]) == {"": 10}


def test_what_is_not_there_yet_is_asked_for() -> None:
    """A cluster that grows when asked gives nothing to whom asks for none."""
    assert fitting([WorkerClass(), WorkerClass("tpu", tpus=4)], [{"CPU": 2.0}]) == {"": 2, "tpu": 1}
    assert fitting([WorkerClass()], []) == {"": 1}
