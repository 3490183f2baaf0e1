"""Subclasses of ComputeNode, with words of their own: further options of `register` are labels."""

from easyremote import ComputeNode

node = ComputeNode(node_id="specialized")


def execute_on_quantum_hardware(circuit_definition):
    """Runs a circuit of one bit: what X and H do to the chance of reading 1."""
    zero, one = 1.0, 0.0
    for gate in circuit_definition:
        zero, one = (one, zero) if gate == "X" else ((zero + one) / 2**0.5, (zero - one) / 2**0.5)
    return round(one * one, 6)


def automated_model_deployment(model_artifact, deployment_config):
    return {"deployed": model_artifact, "replicas": deployment_config["replicas"]}


# Future: Specialized node roles
class QuantumComputeNode(ComputeNode):
    """Specialized node for quantum computing tasks"""
    
    @node.register(quantum_backend="ibm_q")
    def run_quantum_circuit(circuit_definition):
        return execute_on_quantum_hardware(circuit_definition)

class MLOpsNode(ComputeNode):
    """Specialized node for ML operations"""
    
    @node.register(pipeline="automated")
    def deploy_model(model_artifact, deployment_config):
        return automated_model_deployment(model_artifact, deployment_config)

node.serve()
