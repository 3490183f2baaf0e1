"""A workflow over three machines."""

import asyncio
from types import SimpleNamespace

from easyremote import remote


# Researcher using multiple remote resources
@remote(node_id="hpc-cluster")
def run_simulation(simulation_params):
    pass

@remote(node_id="gpu-farm") 
def train_model(model_config):
    pass

@remote(node_id="data-warehouse")
def query_large_dataset(query):
    pass

# Compose complex workflows
async def research_pipeline(experiment_config):
    # Step 1: Get data
    data = await query_large_dataset(experiment_config.data_query)
    
    # Step 2: Run simulation
    simulation_results = await run_simulation({
        "data": data,
        "parameters": experiment_config.sim_params
    })
    
    # Step 3: Train model
    model = await train_model({
        "architecture": experiment_config.model_arch,
        "training_data": simulation_results
    })
    
    return {"model": model, "results": simulation_results}


experiment = SimpleNamespace(data_query={"rows": 20}, sim_params={"rate": 0.25, "steps": 5}, model_arch="line")
outcome = asyncio.run(research_pipeline(experiment))
assert len(outcome["results"]) == 20 and outcome["model"]["slope"] > 0, outcome
print(f"a {outcome['model']['architecture']} of slope {outcome['model']['slope']:.2f}")
