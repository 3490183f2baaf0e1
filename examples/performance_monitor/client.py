"""Profiles blocks of this program; no gateway is needed."""

# Profile code blocks
from r3mes.monitor import get_global_monitor

monitor = get_global_monitor()
for step in range(20):
    with monitor.profile("training_step"):
        # Your training code here
        weights = [value * 0.99 for value in range(10_000)]

# Get performance summary
summary = monitor.get_metrics_summary()
recommendations = monitor.get_optimization_recommendations()

operation = monitor.get_profiles()["operations"]["training_step"]
assert operation["count"] == 20 and summary["sample_count"] >= 1, (operation, summary)
print(f"{operation['duration_ms']['avg']:.2f} ms a step, {summary['memory_mb']['current']:.0f} MB resident")
print(recommendations)
