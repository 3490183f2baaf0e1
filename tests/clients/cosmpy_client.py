"""Uses the chain as a user of cosmpy does. Run: cosmpy_client.py GRPC SECRET_KEY_IN_HEX ADDRESS"""

import sys
from importlib.metadata import version

from cosmpy.aerial.client import LedgerClient, NetworkConfig
from cosmpy.aerial.exceptions import NotFoundError
from cosmpy.aerial.wallet import LocalWallet
from cosmpy.crypto.address import Address
from cosmpy.crypto.keypairs import PrivateKey
from cosmpy.protos.cosmos.auth.v1beta1.query_pb2 import QueryParamsRequest
from cosmpy.protos.cosmos.bank.v1beta1.query_pb2 import QueryTotalSupplyRequest
from cosmpy.protos.cosmos.base.tendermint.v1beta1.query_pb2 import GetLatestBlockRequest, GetNodeInfoRequest
from grpc import RpcError, StatusCode
from grpc import insecure_channel as channel

grpc, secret, other = sys.argv[1:]
print("client cosmpy", version("cosmpy"))


def check(holds, what):
    if not holds:
        sys.exit(f"failed: {what}")
    print("ok", what)


client = LedgerClient(
    NetworkConfig(
        chain_id="rpc-1",
        url=f"grpc+http://{grpc}",
        fee_minimum_gas_price=0.001,
        fee_denomination="uremes",
        staking_denomination="uremes",
    )
)
wallet = LocalWallet(PrivateKey(bytes.fromhex(secret)), prefix="remes")
other = Address(other)

check(client.query_bank_balance(wallet.address(), denom="uremes") == 1_000_000_000, "a balance")
check(client.query_bank_all_balances(wallet.address())[0].denom == "uremes", "all balances")
check(client.query_account(wallet.address()).sequence == 0, "an account")
check(client.auth.Params(QueryParamsRequest()).params.max_memo_characters == 256, "parameters")
supply = client.bank.TotalSupply(QueryTotalSupplyRequest()).supply
check(supply[0].denom == "uremes" and int(supply[0].amount) >= 3_000_000_000, "the supply")
info = client.tendermint.GetNodeInfo(GetNodeInfoRequest()).default_node_info
check(info.network == "rpc-1", "the node")
check(client.query_height() >= 1, "a height")
block = client.tendermint.GetLatestBlock(GetLatestBlockRequest()).block
check(block.header.chain_id == "rpc-1", "a block")

sent = client.send_tokens(other, 5, "uremes", wallet, memo="from cosmpy")
sent.wait_to_complete()
check(sent.response.code == 0, "coins are sent")
check(0 < sent.response.gas_used <= sent.response.gas_wanted, "within the gas that was simulated")
check(client.query_bank_balance(other, denom="uremes") == 1_000_000_005, "and received")
check("transfer" in sent.response.events, "and told of")
check(client.query_account(wallet.address()).sequence == 1, "the sequence counts up")
try:
    client.query_tx("00" * 32)
    check(False, "an unknown transaction is not found")
except NotFoundError:
    check(True, "an unknown transaction is not found")

# What any gRPC client can ask, without generated types.
with channel(grpc) as open_channel:
    def ask(method, question=b"", **more):
        return open_channel.unary_unary(method)(question, **more)

    check(ask("/grpc.health.v1.Health/Check") == b"\x08\x01", "the node is healthy")
    supply = ask("/r3mes.bank.v1.Query/Supply")
    check(supply.startswith(b"\x08"), "a question of our own")
    now = ask("/r3mes.bank.v1.Query/Balance", b"\x0a" + bytes([len(str(other))]) + str(other).encode())
    before = ask(
        "/r3mes.bank.v1.Query/Balance",
        b"\x0a" + bytes([len(str(other))]) + str(other).encode(),
        metadata=[("x-cosmos-block-height", "1")],
    )
    check(now != before, "an earlier state")
    for version in ("v1", "v1alpha"):
        reflect = open_channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        listed = next(reflect(iter([b"\x3a\x00"])))
        check(b"r3mes.training.v1.Query" in listed, f"reflection {version} lists services")
        symbol = b"r3mes.bank.v1.Query"
        described = next(reflect(iter([b"\x22" + bytes([len(symbol)]) + symbol])))
        check(b"QuerySupply" in described, "and describes them")
    try:
        ask("/cosmos.gov.v1.Query/Proposals")
        check(False, "an unknown method is unimplemented")
    except RpcError as refused:
        check(refused.code() == StatusCode.UNIMPLEMENTED, "an unknown method is unimplemented")
