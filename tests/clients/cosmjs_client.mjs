// Uses the chain as a user of CosmJS does.
// Run: cosmjs_client.mjs RPC SECRET_KEY_IN_HEX ADDRESS_OF_ANOTHER
import { readFileSync } from "node:fs";
import { Secp256k1Wallet } from "@cosmjs/amino";
import { fromHex, toUtf8 } from "@cosmjs/encoding";
import { DirectSecp256k1Wallet, Registry } from "@cosmjs/proto-signing";
import {
  calculateFee,
  defaultRegistryTypes,
  GasPrice,
  SigningStargateClient,
  StargateClient,
} from "@cosmjs/stargate";

const [rpc, secret, other] = process.argv.slice(2);
const package_json = new URL("node_modules/@cosmjs/stargate/package.json", import.meta.url);
const { version } = JSON.parse(readFileSync(package_json));
console.log(`client @cosmjs/stargate ${version}`);

function check(holds, what) {
  if (!holds) {
    console.error(`failed: ${what}`);
    process.exit(1);
  }
  console.log("ok", what);
}

// Our own messages: protobuf by hand, as `proto/r3mes/auth/v1.proto` says, with nothing of ours.
const varint = (number) => {
  const bytes = [];
  for (let left = BigInt(number); ; left >>= 7n) {
    if (left < 0x80n) return [...bytes, Number(left)];
    bytes.push(Number(left & 0x7fn) | 0x80);
  }
};
const text = (tag, value) => [(tag << 3) | 2, ...varint(toUtf8(value).length), ...toUtf8(value)];
const number = (tag, value) => [tag << 3, ...varint(value)];
const MsgGrantFees = {
  fromPartial: (message) => message,
  decode: () => ({}),
  encode: ({ granter, grantee, limit, expiresAt }) => ({
    finish: () =>
      Uint8Array.from([
        ...text(1, granter),
        ...text(2, grantee),
        ...number(3, limit),
        ...number(4, expiresAt),
      ]),
  }),
};
const registry = new Registry([
  ...defaultRegistryTypes,
  ["/r3mes.auth.v1.MsgGrantFees", MsgGrantFees],
]);
const gasPrice = GasPrice.fromString("0.001uremes");

const key = fromHex(secret);
const wallet = await DirectSecp256k1Wallet.fromKey(key, "remes");
const [{ address }] = await wallet.getAccounts();

const reader = await StargateClient.connect(rpc);
check((await reader.getChainId()) === "rpc-1", "the chain id");
check((await reader.getHeight()) >= 1, "a height");
check((await reader.getBlock()).header.chainId === "rpc-1", "a block");
const balance = await reader.getBalance(address, "uremes");
check(balance.amount === "1000000000", "a balance");
check((await reader.getAllBalances(address)).length === 1, "all balances");
check((await reader.getBalance(address, "uatom")).amount === "0", "none of another coin");
const { accountNumber, sequence } = await reader.getSequence(address);
check(accountNumber > 0 && sequence === 0, "account number and sequence");
check((await reader.getAccount("remes1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqvumral")) === null, "no account");

const client = await SigningStargateClient.connectWithSigner(rpc, wallet, {
  registry,
  gasPrice,
  broadcastPollIntervalMs: 100,
});
const coins = (amount) => [{ denom: "uremes", amount: String(amount) }];
const send = {
  typeUrl: "/cosmos.bank.v1beta1.MsgSend",
  value: { fromAddress: address, toAddress: other, amount: coins(5) },
};
const gas = await client.simulate(address, [send], "from CosmJS");
check(gas > 10_000, "a transaction is simulated");
check((await client.simulate(address, [send], "from CosmJS")) === gas, "and again with the same gas");
const fee = calculateFee(Math.ceil(gas * 1.1), gasPrice);
const sent = await client.sendTokens(address, other, coins(5), fee, "from CosmJS");
check(sent.code === 0, `coins are sent: ${sent.rawLog}`);
check(Number(sent.gasUsed) <= gas, "within the simulated gas");
check((await reader.getBalance(other, "uremes")).amount === "1000000005", "and received");
const auto = await client.signAndBroadcast(address, [send], "auto");
check(auto.code === 0, "with gas found by itself");

const grant = {
  typeUrl: "/r3mes.auth.v1.MsgGrantFees",
  value: { granter: address, grantee: other, limit: 7, expiresAt: 4_000_000_000_000_000_000n },
};
const granted = await client.signAndBroadcast(address, [grant], "auto");
check(granted.code === 0, `a message of our own: ${granted.rawLog}`);
check(granted.events.some((event) => event.type === "auth.fees_granted"), "and its event");

const amino = await Secp256k1Wallet.fromKey(key, "remes");
const hardware = await SigningStargateClient.connectWithSigner(rpc, amino, {
  gasPrice,
  broadcastPollIntervalMs: 100,
});
const shown = await hardware.sendTokens(address, other, coins(6), "auto", 'amino & <"memo">');
check(shown.code === 0, `a transfer signed as amino JSON: ${shown.rawLog}`);

const found = await reader.getTx(sent.transactionHash);
check(found.height === sent.height && found.code === 0, "a transaction by hash");
const bySender = await reader.searchTx(`transfer.sender='${address}'`);
check(bySender.some((tx) => tx.hash === sent.transactionHash), "transactions by event");
const byHeight = await reader.searchTx(`tx.height=${sent.height}`);
check(byHeight.some((tx) => tx.hash === sent.transactionHash), "transactions by height");

const late = await client.sign(address, [send], fee, "", {
  accountNumber,
  sequence: 0,
  chainId: "rpc-1",
});
const { TxRaw } = await import("cosmjs-types/cosmos/tx/v1beta1/tx");
try {
  await client.broadcastTx(TxRaw.encode(late).finish());
  check(false, "a used sequence is refused");
} catch (error) {
  check(error.code === 32, "a used sequence is refused with code 32");
  check(
    /account sequence mismatch, expected \d+, got 0: incorrect account sequence/.test(error.log),
    "in the words of the SDK",
  );
}
client.disconnect();
// A broadcast's own deadline would keep the process for a minute.
process.exit(0);
