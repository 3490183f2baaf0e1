"""Simulates."""

from easyremote import ComputeNode

node = ComputeNode(node_id="hpc-cluster")

@node.register
def run_simulation(simulation_params):
    """Diffuses heat along a rod."""
    rod = [float(value) for value in simulation_params["data"]]
    rate = simulation_params["parameters"]["rate"]
    for _ in range(simulation_params["parameters"]["steps"]):
        inner = [b + rate * (a - 2 * b + c) for a, b, c in zip(rod, rod[1:], rod[2:])]
        rod = [rod[0], *inner, rod[-1]]
    return rod

node.serve()
