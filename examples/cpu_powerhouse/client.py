"""Calls a coroutine function by what its node is good at."""

import hashlib

from easyremote import remote


@remote(capability="data_processing")
def parallel_data_processing(large_dataset):
    pass


parts = [f"part {number}" for number in range(100)]
digests = parallel_data_processing(parts)
assert digests == [hashlib.sha256(part.encode()).hexdigest() for part in parts]
print(f"{len(digests)} parts digested")
