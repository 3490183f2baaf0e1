"""Asks any node with a thermometer, whichever it is."""

import time

from easyremote import remote


@remote(capability="temperature")
def capture_sensor_data():
    pass


reading = capture_sensor_data()
assert reading["temperature"] >= 20.0 and abs(reading["timestamp"] - time.time()) < 60, reading
print(f"{reading['temperature']:.1f} degrees, motion: {reading['motion']}")
