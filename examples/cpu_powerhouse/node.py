"""A node that spreads one call over the processors of its machine."""

import asyncio
import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from easyremote import ComputeNode

# Workers are forked by a server of their own: forking a process that has threads is not safe.
workers = ProcessPoolExecutor(max_workers=2, mp_context=get_context("forkserver"))


async def process_with_multiprocessing(large_dataset):
    loop = asyncio.get_running_loop()
    digests = [loop.run_in_executor(workers, digest, part) for part in large_dataset]
    return await asyncio.gather(*digests)


def digest(part):
    return hashlib.sha256(part.encode()).hexdigest()


cpu_node = ComputeNode(
    vps_address="gateway.com:8080", 
    node_id="cpu-powerhouse",
    capabilities={
        "cpu": {"cores": 64, "threads": 128},
        "specialization": ["data_processing", "compilation", "analysis"]
    }
)

@cpu_node.register(async_func=True)
async def parallel_data_processing(large_dataset):
    """Process large datasets using all CPU cores"""
    return await process_with_multiprocessing(large_dataset)

if __name__ == "__main__":  # the workers import this file too
    cpu_node.serve()
