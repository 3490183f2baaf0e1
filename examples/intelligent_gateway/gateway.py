"""A gateway of one's own making: it has nodes ready before calls must wait, and keeps what is asked for again.

`IntelligentGateway` says when; what it asks stands above it, each as simple as can be.
"""

import asyncio
import os
import signal
from collections import Counter
from dataclasses import dataclass

from easyremote import ComputeNode, Server, remote

threshold = 0.4


@dataclass(frozen=True)
class Call:
    question: str
    answer: int


class DemandPredictor:
    """Goes on with the change between the last two numbers of calls that ran."""

    def __init__(self):
        self.seen = [0, 0]

    async def forecast_demand(self):
        before, last = self.seen[-2:]
        return max(1, last + (last - before))


class WorkerScheduler:
    """Starts nodes, up to four; they stay."""

    def __init__(self, gateway):
        self.gateway, self.workers, self.one_at_a_time = gateway, [], asyncio.Lock()

    async def scale_for_demand(self, demand_forecast):
        async with self.one_at_a_time:
            while len(self.workers) < min(demand_forecast, 4):
                worker = ComputeNode(self.gateway.address, f"worker-{len(self.workers) + 1}")
                worker.register(count_words)
                self.workers.append(await asyncio.to_thread(worker.start))


class RepetitionPredictor:
    """The share of calls with this question that were not the first one."""

    def __init__(self):
        self.asked = Counter()

    async def should_cache(self, function_call):
        self.asked[function_call.question] += 1
        return 1 - 1 / self.asked[function_call.question]


class Results:
    def __init__(self):
        self.kept = {}

    async def cache_result(self, function_call):
        self.kept[function_call.question] = function_call.answer


# Future: Advanced gateway capabilities
class IntelligentGateway(Server):
    """Gateway with AI-powered optimization"""

    def __init__(self, port):
        super().__init__(port)
        self.ml_predictor, self.resource_scheduler = DemandPredictor(), WorkerScheduler(self)
        self.cache_predictor, self.cache_manager = RepetitionPredictor(), Results()

    async def predictive_scaling(self):
        """Predict resource needs and scale preemptively"""
        demand_forecast = await self.ml_predictor.forecast_demand()
        await self.resource_scheduler.scale_for_demand(demand_forecast)
    
    async def intelligent_caching(self, function_call):
        """AI-driven caching decisions"""
        cache_value = await self.cache_predictor.should_cache(function_call)
        if cache_value > threshold:
            await self.cache_manager.cache_result(function_call)


def count_words(question):
    return len(question.split())


gateway = IntelligentGateway(port=int(os.environ.get("R3MES_EXAMPLE_PORT", 8080)))
gateway.start_background()
front = ComputeNode(gateway.address, "front")
working = 0


@front.register
async def ask(question):
    """Answers from what is kept, or lets a worker answer; says which."""
    global working
    if question in gateway.cache_manager.kept:
        return {"answer": gateway.cache_manager.kept[question], "kept": True}
    working += 1
    gateway.ml_predictor.seen.append(working)
    try:
        await gateway.predictive_scaling()
        answer = await remote(function="count_words", gateway=gateway.address)(count_words)(question)
    finally:
        working -= 1
    await gateway.intelligent_caching(Call(question, answer))
    return {"answer": answer, "kept": False}


front.start()
print(f"gateway at {gateway.address}", flush=True)
signal.pause()
