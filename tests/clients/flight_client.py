"""Reads and writes adapters and packages as a user of pyarrow does.
Run: flight_client.py ADDRESS ADAPTER_CID PACKAGE_CID MINER ROUND, with the token in R3MES_FLIGHT_TOKEN."""

import json
import os
import sys

import numpy
import pyarrow
from pyarrow import flight

address, adapter, package, miner, round_number = sys.argv[1:]
token = os.environ["R3MES_FLIGHT_TOKEN"]
print("client pyarrow", pyarrow.__version__)


def check(holds, what):
    if not holds:
        sys.exit(f"failed: {what}")
    print("ok", what)


def refused(error, call, what):
    try:
        call()
        check(False, what)
    except error as refusal:
        check(len(str(refusal)) > 20, what)


client = flight.connect(f"grpc://{address}")
options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])


def read(*path):
    info = client.get_flight_info(flight.FlightDescriptor.for_path(*path), options)
    return client.do_get(info.endpoints[0].ticket, options).read_all(), info


def write(table, *path):
    writer, answers = client.do_put(flight.FlightDescriptor.for_path(*path), table.schema, options)
    writer.write_table(table)
    writer.done_writing()
    answer = answers.read()
    writer.close()
    return answer.to_pybytes().decode()


listed = [[part.decode() for part in info.descriptor.path] for info in client.list_flights(options=options)]
check(["adapter", adapter] in listed and ["gradients", miner, round_number] in listed, "flights are listed")

table, info = read("adapter", adapter)
check(table.schema == info.schema and table.num_rows == info.total_records, "an adapter is read")
columns = [name for name in table.column_names if name != "layer"]
check(table["layer"].to_pylist() == list(range(table.num_rows)), "a row for each layer")
tensors = {name: table[name].combine_chunks().to_numpy_ndarray() for name in columns}
rank = int(table.schema.metadata[b"r3mes.rank"])
check(
    all(tensors[name].shape[1 if name.endswith(".a") else 2] == rank for name in columns),
    "shapes stand in the schema",
)
check(all(tensor.dtype == numpy.float32 for tensor in tensors.values()), "and the dtype")
canonical = b"".join(tensors[name][layer].tobytes() for layer in range(table.num_rows) for name in columns)
blob, _ = read("blob", adapter)
check(b"".join(blob["bytes"].to_pylist()) == canonical, "the numbers are the canonical bytes")
check(write(table, "adapter") == adapter, "written back, it has the same CID")
rebuilt = pyarrow.table({
    "layer": table["layer"],
    **{name: pyarrow.FixedShapeTensorArray.from_numpy_ndarray(tensors[name]) for name in columns},
})
check(write(rebuilt, "adapter") == adapter, "also from numpy arrays")
tensors["q.a"] = tensors["q.a"] + 1
changed = rebuilt.set_column(1, "q.a", pyarrow.FixedShapeTensorArray.from_numpy_ndarray(tensors["q.a"]))
check(changed.column_names[1] == "q.a" and write(changed, "adapter") != adapter, "other numbers have another CID")
refused(pyarrow.ArrowInvalid, lambda: write(changed, "adapter", adapter), "and are refused under the first")

table, _ = read("package", package)
again, _ = read("gradients", miner, round_number)
check(table == again, "a package is read by its CID and by miner and round")
size = int(table.schema.metadata[b"r3mes.chunk"])
counts = [len(codes) for codes in table["codes"].to_pylist()]
check(counts == [len(positions) for positions in table["positions"].to_pylist()] and sum(counts) > 0, "its entries")
check(max(max(p) for p in table["positions"].to_pylist() if p) < size, "lie in their chunks")
mantissas, _ = numpy.frexp(table["scale"].to_numpy())
check(set(mantissas) == {0.5}, "scales are powers of two")
check(write(table, "package") == package, "written back, it has the same CID")
refused(pyarrow.ArrowInvalid, lambda: write(table.slice(1), "package"), "with a chunk missing it is refused")

stats = json.loads(next(iter(client.do_action("stats", options))).body.to_pybytes())
check(stats["written"] >= 2, "what was written is counted")

ticket = flight.Ticket(f"package/{package}")
refused(flight.FlightUnauthenticatedError, lambda: client.do_get(ticket).read_all(), "without the token nothing is read")
wrong = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + b"0" * 32)])
refused(flight.FlightUnauthenticatedError, lambda: client.do_get(ticket, wrong).read_all(), "nor with another one")
header = client.authenticate_basic_token("anybody", token)
shown = flight.FlightCallOptions(headers=[header])
check(client.do_get(ticket, shown).read_all() == table, "the token is taken as a password too")
