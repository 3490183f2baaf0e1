"""Scores nodes as the gateway does, from what it tells of them; then lets the gateway choose by itself."""

import asyncio
from types import SimpleNamespace

from easyremote import Client, remote


def gigabytes(size):
    return float(size.removesuffix("GB"))


class Nodes:
    """What a balancer asks of the gateway."""

    async def find_capable_nodes(self, function_name, requirements):
        nodes = await asyncio.to_thread(Client().nodes)
        self.known = {node["id"]: node for node in nodes if function_name in node["functions"]}
        return [name for name in self.known if self.memory_of(name) >= gigabytes(requirements["gpu_memory"])]

    def memory_of(self, name):
        return gigabytes(self.known[name]["capabilities"]["gpu"]["memory"])

    async def get_node_status(self, node):
        known = self.known[node]
        return SimpleNamespace(
            resources=self.memory_of(node),
            avg_latency=known["latency_s"] or 0,
            current_load=known["running"],
            max_capacity=known["max_concurrent"],
            capabilities=known["capabilities"]["specialization"],
        )

    def score_resources(self, resources, requirements):
        return min(1.0, resources / gigabytes(requirements["gpu_memory"]) / 2)

    def score_capabilities(self, capabilities, requirements):
        return float(requirements["specialization"] in capabilities)


class SmartLoadBalancer(Nodes):
    async def select_best_node(self, function_name: str, requirements: dict):
        """Select optimal node based on multiple factors"""
        candidates = await self.find_capable_nodes(function_name, requirements)
        
        scores = {}
        for node in candidates:
            score = await self.calculate_node_score(node, requirements)
            scores[node] = score
        
        # Select highest scoring node
        best_node = max(scores.items(), key=lambda x: x[1])[0]
        return best_node
    
    async def calculate_node_score(self, node: str, requirements: dict) -> float:
        """Calculate suitability score for a node"""
        node_status = await self.get_node_status(node)
        
        # Factors: resource availability, latency, load, capability match
        resource_score = self.score_resources(node_status.resources, requirements)
        latency_score = 1.0 / (node_status.avg_latency + 1)
        load_score = 1.0 - (node_status.current_load / node_status.max_capacity)
        capability_score = self.score_capabilities(node_status.capabilities, requirements)
        
        # Weighted average
        total_score = (
            resource_score * 0.3 +
            latency_score * 0.2 + 
            load_score * 0.3 +
            capability_score * 0.2
        )
        
        return total_score


@remote(capability="rendering", requirements={"gpu_memory": "16GB"})
def render(frame):
    pass


async def main():
    balancer = SmartLoadBalancer()
    needs = {"gpu_memory": "16GB", "specialization": "rendering"}
    best = await balancer.select_best_node("render", needs)
    score = await balancer.calculate_node_score(best, needs)
    chosen = await render(1)
    assert best == chosen["node"] == "render-large", (best, chosen)
    assert 0.8 < score < 1, score
    print(f"{best} scores {score:.3f}, and the gateway chose it too")


asyncio.run(main())
