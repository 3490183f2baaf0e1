"""A small machine with sensors. Here the kernel stands in for them: its load, and whether it was used."""

import os
import time

from easyremote import ComputeNode


def get_temperature():
    return 20.0 + os.getloadavg()[0]


def detect_motion():
    return os.getloadavg()[0] > 0.5


edge_node = ComputeNode(
    vps_address="gateway.com:8080",
    node_id="raspberry-pi-sensor",
    capabilities={
        "sensors": ["camera", "temperature", "motion"],
        "location": {"lat": 37.7749, "lng": -122.4194},
        "specialization": ["iot_data", "local_inference"]
    }
)

@edge_node.register
def capture_sensor_data():
    """Capture real-time sensor data from edge device"""
    return {
        "temperature": get_temperature(),
        "motion": detect_motion(),
        "timestamp": time.time()
    }

edge_node.serve()
