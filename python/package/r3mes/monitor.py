"""How long operations take, and what they use of this machine.

    from r3mes.monitor import get_global_monitor

    monitor = get_global_monitor()
    with monitor.profile("training_step"):
        ...
    print(monitor.get_metrics_summary())

Figures come from the operating system and, where there are NVIDIA GPUs, from NVML. What is not known is `None`.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import weakref
from collections import deque
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Iterator, Sequence

from . import _native

__all__ = [
    "PerformanceMonitor",
    "get_global_monitor",
    "get_metrics_summary",
    "get_optimization_recommendations",
    "profile",
]

#: Seconds between two samples of the machine, and the samples that are kept: an hour of them.
INTERVAL_S = 1.0
KEPT = 3600
#: Samples and executions before anything is recommended of them.
ENOUGH = 10

_MB = 1e6


@dataclasses.dataclass(frozen=True)
class Sample:
    """The machine at one moment."""

    #: Seconds since 1970.
    timestamp: float
    #: Shares in use, 0 to 100, of all processors (since the sample before), of the memory, and of the GPUs.
    cpu_percent: float | None
    memory_percent: float | None
    gpu_percent: float | None
    #: Megabytes that this process has resident, and that are in use on the GPUs by anybody.
    memory_mb: float | None
    gpu_memory_mb: float | None


@dataclasses.dataclass
class Operation:
    """What is known of an operation: all its executions together."""

    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0
    min_s: float = float("inf")
    #: Bytes that this process has resident more after executions than before; those in which it is known.
    grown: float = 0.0
    grown_count: int = 0
    #: Seconds since 1970.
    last_execution: float = 0.0

    def add(self, seconds: float, grown: float | None, ended: float) -> None:
        """Counts an execution."""
        self.count += 1
        self.total_s += seconds
        self.max_s, self.min_s = max(self.max_s, seconds), min(self.min_s, seconds)
        if grown is not None:
            self.grown += grown
            self.grown_count += 1
        self.last_execution = ended

    @property
    def growth_mb(self) -> float | None:
        """Megabytes that an execution leaves behind, on average."""
        return self.grown / self.grown_count / _MB if self.grown_count else None


class PerformanceMonitor:
    """Samples the machine once a second from its first use on, and times operations.

    In a process that is forked it begins anew: its figures are of one process.
    """

    def __init__(self) -> None:
        self._begin_anew()
        self._sampled()
        _monitors.add(self)

    def _begin_anew(self) -> None:
        self._machine: _native.Machine | None = None
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._operations: dict[str, Operation] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._is_sampled = False

    def _forked(self) -> None:
        """Forgets its parent's figures, and locks that a thread may hold which this process has not."""
        stopped = self._stopped.is_set()
        _of_parents.append(self._machine)
        self._begin_anew()
        if stopped:
            self._stopped.set()

    def _sampled(self) -> _native.Machine:
        """The machine, which is sampled from now on if it was not in this process."""
        with self._lock:
            if self._machine is None:
                self._machine = _native.Machine()
            machine, begun, self._is_sampled = self._machine, self._is_sampled, True
        if not begun and not self._stopped.is_set():
            threading.Thread(target=self._run, name="r3mes monitor", daemon=True).start()
        return machine

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        seen = self._sampled().look()

        def scaled(name: str, factor: float) -> float | None:
            value = seen[name]
            return None if value is None else value * factor

        sample = Sample(
            time.time(),
            scaled("cpu", 100),
            scaled("memory", 100),
            scaled("gpu", 100),
            scaled("own_memory", 1 / _MB),
            scaled("gpu_memory", 1 / _MB),
        )
        with self._lock:
            self._samples.append(sample)

    @contextmanager
    def profile(self, name: str) -> Iterator[None]:
        """Times what runs within, under a name; also as a decorator. An execution that raises counts too."""
        machine = self._sampled()
        before, began = machine.own_memory(), time.perf_counter()
        try:
            yield
        finally:
            seconds, after = time.perf_counter() - began, machine.own_memory()
            grown = None if before is None or after is None else float(after - before)
            with self._lock:
                self._operations.setdefault(name, Operation()).add(seconds, grown, time.time())

    def get_metrics_summary(self, time_range_seconds: float | None = None) -> dict[str, Any]:
        """Current value, mean, largest and smallest of each figure, over the samples kept or the last so many seconds.

        There is a sample at least from now on: without one yet, the machine is looked at first.
        """
        self._sampled()
        if not self._samples:
            self._sample()
        with self._lock:
            samples = list(self._samples)
        if time_range_seconds is not None:
            since = time.time() - time_range_seconds
            samples = [sample for sample in samples if sample.timestamp >= since] or samples[-1:]
        summary: dict[str, Any] = {
            "timestamp": samples[-1].timestamp,
            "sample_count": len(samples),
            "time_range_seconds": samples[-1].timestamp - samples[0].timestamp,
        }
        for figure in ("cpu_percent", "memory_percent", "gpu_percent", "memory_mb", "gpu_memory_mb"):
            summary[figure] = _spread(samples, figure)
        return summary

    def get_profiles(self) -> dict[str, Any]:
        """Each operation: how often, how long in milliseconds, megabytes it left behind, and when it ended last."""
        with self._lock:
            operations = {name: dataclasses.replace(one) for name, one in self._operations.items()}
        return {
            "operations": {
                name: {
                    "count": one.count,
                    "duration_ms": {
                        "avg": 1000 * one.total_s / one.count,
                        "max": 1000 * one.max_s,
                        "min": 1000 * one.min_s,
                        "total": 1000 * one.total_s,
                    },
                    "memory_delta_mb": one.growth_mb,
                    "last_execution": one.last_execution,
                }
                for name, one in operations.items()
            }
        }

    def get_optimization_recommendations(self) -> list[str]:
        """What the figures say could be better; nothing until there are enough of them."""
        with self._lock:
            operations = {name: dataclasses.replace(one) for name, one in self._operations.items()}
            return recommend(list(self._samples), operations)

    def stop(self) -> None:
        """Samples no more; what is known stays."""
        self._stopped.set()


def _spread(samples: Sequence[Sample], figure: str) -> dict[str, float | None]:
    known = [value for sample in samples if (value := getattr(sample, figure)) is not None]
    if not known:
        return {"current": None, "avg": None, "max": None, "min": None}
    least, most = min(known), max(known)
    return {
        "current": getattr(samples[-1], figure),
        # A sum that was rounded may lead out of them.
        "avg": min(max(sum(known) / len(known), least), most),
        "max": most,
        "min": least,
    }


def recommend(samples: Sequence[Sample], operations: dict[str, Operation]) -> list[str]:
    """What figures say could be better."""
    advice = []
    for name, one in sorted(operations.items()):
        if one.count < ENOUGH:
            continue
        if one.growth_mb is not None and one.growth_mb > 1:
            advice.append(f"{name} leaves {one.growth_mb:.1f} MB behind each time: keep fewer of its results")
        average = one.total_s / one.count
        if one.max_s > 3 * average and one.max_s > 0.01:
            advice.append(
                f"{name} took {1000 * one.max_s:.0f} ms at most and {1000 * average:.0f} ms on average: "
                "something else holds it up at times, such as loading data within it"
            )
    if len(samples) < ENOUGH:
        return advice
    cpu, memory = _spread(samples, "cpu_percent")["avg"], _spread(samples, "memory_percent")["max"]
    gpu = _spread(samples, "gpu_percent")["avg"]
    if cpu is not None and cpu > 90:
        advice.append(f"the processors are {cpu:.0f}% busy: run fewer things at a time, or add a machine")
    if memory is not None and memory > 90:
        advice.append(f"{memory:.0f}% of the memory was in use: take smaller batches (R3MES_BATCH_SIZE)")
    if gpu is not None and gpu < 50 and operations:
        advice.append(f"the GPUs are {gpu:.0f}% busy: take larger batches, or load data while they compute")
    return advice


#: Those that there are, to begin anew in a process that is forked.
_monitors: weakref.WeakSet[PerformanceMonitor] = weakref.WeakSet()
#: What this process's parents measured with, and may not be ended here.
_of_parents: list[_native.Machine | None] = []
_global: PerformanceMonitor | None = None
_making = threading.Lock()


def _forked() -> None:
    """Gives a forked process locks of its own: its parent's may be held by a thread that it has not."""
    global _making
    _making = threading.Lock()
    for made in _monitors:
        made._forked()


os.register_at_fork(after_in_child=_forked)


def get_global_monitor() -> PerformanceMonitor:
    """The monitor of this process, which samples from the first call on."""
    global _global
    with _making:
        if _global is None:
            _global = PerformanceMonitor()
        return _global


def profile(name: str) -> AbstractContextManager[None]:
    """As `PerformanceMonitor.profile` of this process's monitor."""
    return get_global_monitor().profile(name)


def get_metrics_summary(time_range_seconds: float | None = None) -> dict[str, Any]:
    """As `PerformanceMonitor.get_metrics_summary` of this process's monitor."""
    return get_global_monitor().get_metrics_summary(time_range_seconds)


def get_optimization_recommendations() -> list[str]:
    """As `PerformanceMonitor.get_optimization_recommendations` of this process's monitor."""
    return get_global_monitor().get_optimization_recommendations()
