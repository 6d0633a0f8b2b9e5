"""Event files for TensorBoard."""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolion.errors import InputError
from evolion.telemetry import Measure, Measurements

__all__ = ["TensorBoard", "tensorboard"]


@dataclass(slots=True)
class TensorBoard:
    """Writes scalars by the number of candidates told, each process into an event file of its own.

    A run that is resumed tells some candidates again. Its file says from where on it counts, and TensorBoard drops what
    earlier files say of later steps: the curves go on without a double stretch.

    The records are written here and now: the writer of the library hands them to a thread, and once that has died, of a
    full disk say, the next ones wait for ever.

    Attributes:
        folder: Where; made with the first record.
        clock: In seconds since 1970.

    """

    folder: Path
    clock: Callable[[], float] = time.time
    _records: Any = None
    _step: int = -1

    def write(self, step: int, measures: Sequence[Measure]) -> None:
        """Write a scalar for each measure, once for each step.

        Raises:
            OSError: If the file cannot be written.

        """
        if step == self._step:
            return
        self._step = step
        events = importlib.import_module("tensorboardX.proto.event_pb2")
        if self._records is None:
            self._begin(events, step)
        event = events.Event(wall_time=self.clock(), step=step)
        for measure in measures:
            tag = measure.name if measure.label is None else f"{measure.name}/{measure.label[1]}"
            event.summary.value.add(tag=tag, simple_value=measure.value)
        self._records.write(event.SerializeToString())
        self._records.flush()

    def _begin(self, events: Any, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        now = self.clock()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._records = importlib.import_module("tensorboardX").RecordWriter(str(self.folder / name))
        self._records.write(events.Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        start = events.SessionLog(status=events.SessionLog.START)
        self._records.write(events.Event(wall_time=now, step=step, session_log=start).SerializeToString())

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._records is not None:
            self._records.close()


@contextmanager
def tensorboard(folder: Path | str) -> Iterator[Measurements]:
    """Return an observer that writes event files into a folder, and close them at the end of the block.

    Raises:
        InputError: If the library is missing.

    """
    try:
        importlib.import_module("tensorboardX")
    except ImportError:
        raise InputError(
            "event files need the package tensorboardX: install it with pip install 'evolion[tensorboard]'"
        ) from None
    writer = TensorBoard(Path(folder))
    try:
        yield Measurements(writer)
    finally:
        writer.close()
