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
