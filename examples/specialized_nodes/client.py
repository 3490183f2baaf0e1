"""Labels of functions are capabilities: a call may ask for one."""

from easyremote import Client, remote
from r3mes import FunctionNotFoundError


@remote(capability="ibm_q")
def run_quantum_circuit(circuit_definition):
    pass


assert run_quantum_circuit(["H"]) == 0.5 and run_quantum_circuit(["X"]) == 1.0
deployed = remote(capability="pipeline", function="deploy_model")(lambda: None)("model-1", {"replicas": 2})
assert deployed == {"deployed": "model-1", "replicas": 2}, deployed
try:
    remote(capability="ion_trap", function="run_quantum_circuit")(lambda: None)([])
except FunctionNotFoundError as error:
    print(f"refused: {error}")
else:
    raise AssertionError("no node has an ion trap")
labels = {f["info"]["name"]: f["info"]["labels"] for f in Client().functions()}
assert labels["deploy_model"] == {"pipeline": "automated"}, labels
