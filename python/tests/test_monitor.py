"""What the monitor measures, and what it makes of it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import Any, Iterator

import pytest

from r3mes import monitor
from r3mes.monitor import Operation, PerformanceMonitor, Sample, get_global_monitor, recommend


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[PerformanceMonitor]:
    monkeypatch.setattr(monitor, "INTERVAL_S", 0.01)
    made = PerformanceMonitor()
    yield made
    made.stop()


def test_operations_are_timed_and_the_machine_is_sampled(measured: PerformanceMonitor) -> None:
    kept = []
    for _ in range(3):
        with measured.profile("training_step"):
            kept.append(bytearray(b"x" * 20_000_000))
    with pytest.raises(ZeroDivisionError), measured.profile("failing"):
        1 / 0
    step = measured.get_profiles()["operations"]["training_step"]
    took = step["duration_ms"]
    assert step["count"] == 3 and 0 < took["min"] <= took["avg"] <= took["max"] <= took["total"]
    assert 10 < step["memory_delta_mb"] < 100 and abs(step["last_execution"] - time.time()) < 60
    assert measured.get_profiles()["operations"]["failing"]["count"] == 1

    late = time.monotonic() + 60
    while (summary := measured.get_metrics_summary())["sample_count"] < 5:
        assert time.monotonic() < late
        time.sleep(0.01)
    assert summary["memory_mb"]["max"] >= 60 and summary["time_range_seconds"] > 0
    for figure in ("cpu_percent", "memory_percent"):
        spread = summary[figure]
        assert 0 <= spread["min"] <= spread["avg"] <= spread["max"] <= 100, (figure, spread)
    assert measured.get_metrics_summary(time_range_seconds=0)["sample_count"] == 1


def test_a_summary_is_there_at_once_and_what_is_not_known_is_none() -> None:
    made = PerformanceMonitor()
    made.stop()
    made._machine = Blind()  # type: ignore[assignment]
    assert made.get_metrics_summary()["gpu_percent"] == {"current": None, "avg": None, "max": None, "min": None}
    assert made.get_optimization_recommendations() == []


def test_an_average_lies_between_the_least_and_the_most() -> None:
    figure = 3.804620400863845
    sample = Sample(1.0, figure, figure, None, figure, None)
    for count in range(1, 40):
        spread = monitor._spread([sample] * count, "cpu_percent")
        assert spread == dict.fromkeys(["current", "avg", "max", "min"], figure), count


class Blind:
    """A machine of which nothing can be known."""

    def look(self) -> dict[str, None]:
        return dict.fromkeys(["cpu", "memory", "gpu", "own_memory", "gpu_memory"])


def samples(**figures: Any) -> list[Sample]:
    known = {"cpu_percent": 50.0, "memory_percent": 50.0, "gpu_percent": None, "memory_mb": 1.0, "gpu_memory_mb": None}
    return [Sample(float(at), **{**known, **figures}) for at in range(20)]


def operation(seconds: list[float], grown: float = 0.0) -> Operation:
    made = Operation()
    for one in seconds:
        made.add(one, grown, 0.0)
    return made


@pytest.mark.parametrize(
    ("figures", "operations", "words"),
    [
        ({}, {"step": operation([0.1] * 20)}, None),
        ({"cpu_percent": 97.0}, {}, "97% busy"),
        ({"memory_percent": 95.0}, {}, "R3MES_BATCH_SIZE"),
        ({"gpu_percent": 20.0}, {"step": operation([0.1] * 20)}, "GPUs are 20% busy"),
        ({"gpu_percent": 20.0}, {}, None),
        ({}, {"step": operation([0.1] * 20, 5e6)}, "step leaves 5.0 MB"),
        ({}, {"step": operation([0.1] * 19 + [2.0])}, "2000 ms at most"),
        ({}, {"step": operation([0.1, 2.0], 5e6)}, None),
    ],
)
def test_recommendations_follow_from_figures(figures: dict[str, float], operations: Any, words: str | None) -> None:
    advice = recommend(samples(**figures), operations)
    assert advice == [] if words is None else len(advice) == 1 and words in advice[0]


def test_there_is_one_monitor_for_a_process() -> None:
    assert get_global_monitor() is monitor.get_global_monitor()

    @get_global_monitor().profile("decorated")
    def double(x: int) -> int:
        return 2 * x

    assert double(2) == 4 and double(3) == 6
    assert get_global_monitor().get_profiles()["operations"]["decorated"]["count"] == 2
    with monitor.profile("module"):
        pass
    assert get_global_monitor().get_profiles()["operations"]["module"]["count"] == 1
    assert monitor.get_metrics_summary()["sample_count"] >= 1
    assert isinstance(monitor.get_optimization_recommendations(), list)


def test_a_process_that_is_forked_while_a_thread_holds_the_monitor_has_one_that_samples(
    measured: PerformanceMonitor,
) -> None:
    with measured.profile("of the parent"):
        pass
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with monitor._making, measured._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Newer versions of Python warn of what this is about.
        child = os.fork()
    if child == 0:
        os._exit(_in_child(measured))
    _, status = os.waitpid(child, 0)
    assert monitor._making.locked() and measured._lock.locked()
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert list(measured.get_profiles()["operations"]) == ["of the parent"]


def _in_child(inherited: PerformanceMonitor) -> int:
    """0 if both monitors can be used, and sample, in a thread that may hang."""
    worked = threading.Event()

    def use() -> None:
        if inherited.get_profiles()["operations"]:
            return
        get_global_monitor().stop()
        with inherited.profile("of the child"):
            while inherited.get_metrics_summary()["sample_count"] < 3:
                time.sleep(0.01)
        if list(inherited.get_profiles()["operations"]) == ["of the child"]:
            worked.set()

    threading.Thread(target=use, daemon=True).start()
    return 0 if worked.wait(60) else 1
