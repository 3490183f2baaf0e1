"""A large list goes to all nodes that offer the function, in parts; the results keep its order."""

import asyncio

from easyremote import remote

large_dataset = list(range(10_000))


# Future: Smart client capabilities
@remote(optimization="auto")
def smart_function(data):
    """Function with automatic optimization"""
    pass


async def main():
    # Client automatically:
    # - Chooses best node based on data characteristics
    # - Splits large jobs across multiple nodes  
    # - Handles retries and failover
    # - Optimizes data transfer
    result = await smart_function(large_dataset)
    assert [entry["value"] for entry in result] == [value * value for value in large_dataset]
    shares = {name: sum(entry["node"] == name for entry in result) for name in ("splitting-one", "splitting-two")}
    assert sum(shares.values()) == len(large_dataset), shares
    print(", ".join(f"{name}: {share}" for name, share in shares.items()))


asyncio.run(main())
