"""A university's cluster, for those whose token says that they are academics."""

from easyremote import ComputeNode, ExecutionContext


def submit_to_slurm_cluster(research_proposal_id, params):
    """Integrates a model of one box of air; where there is Slurm, this would submit a job and wait for it."""
    temperature = params["start"]
    for _ in range(params["years"]):
        temperature += params["forcing"] - 0.1 * (temperature - params["start"])
    return {"proposal": research_proposal_id, "temperature": round(temperature, 3)}


# University contributes HPC cluster
hpc_node = ComputeNode("research-gateway:8080", "stanford-hpc")

@hpc_node.register(access_level="academic_verified")
def run_climate_simulation(research_proposal_id, params):
    """Run climate simulations for academic research"""
    return submit_to_slurm_cluster(research_proposal_id, params)

@hpc_node.register(access_level="academic_verified")
def who_asks(context: ExecutionContext):
    return [context.user, context.groups]

hpc_node.serve()
