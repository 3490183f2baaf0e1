// chain.json and assetlist.json of `r3mes query chain-registry`, held against what the chain registry
// publishes: the types of npm chain-registry, as its files are written and as its package hands them
// out, judged by the TypeScript compiler; and used by the registry's own functions and by CosmJS.
// Usage: node chain_registry_client.mjs DIR
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import registry from "@chain-registry/utils";
import { StargateClient } from "@cosmjs/stargate";

const installed = fileURLToPath(new URL("node_modules/", import.meta.url));
const [, , folder] = process.argv;
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const chain = read("chain.json");
const assets = read("assetlist.json");

/** The names that the npm package gives to the fields of the registry's files. */
function renamed(value) {
  if (Array.isArray(value)) return value.map(renamed);
  if (value === null || typeof value !== "object") return value;
  const name = (key) => key.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [name(key), renamed(field)]));
}

/** What the compiler says of a literal of a type; nothing if it fits, without a field too many. */
function complaint(module, type, value) {
  const work = mkdtempSync(join(tmpdir(), "chain-registry-"));
  try {
    const literal = JSON.stringify(value, null, 2);
    const text = `import type { ${type} } from "${module}";\nexport const value: ${type} = ${literal};\n`;
    writeFileSync(join(work, "value.ts"), text);
    const options = {
      strict: true, noEmit: true, types: [], module: "nodenext",
      paths: { [module]: [join(installed, module, "index.d.ts")] },
    };
    writeFileSync(join(work, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["value.ts"] }));
    const judged = spawnSync(join(installed, ".bin/tsc"), ["--project", work], { encoding: "utf8" });
    if (judged.error) throw judged.error;
    assert.equal(judged.status === 0, judged.stdout === "", judged.stderr);
    return judged.stdout;
  } finally {
    rmSync(work, { recursive: true });
  }
}

const published = "@chain-registry/types";
const asWritten = "@chain-registry/types-snake";
for (const [module, form] of [[asWritten, (value) => value], [published, renamed]]) {
  assert.equal(complaint(module, "Chain", form(chain)), "");
  console.log(`ok chain.json is a Chain of ${module}`);
  assert.equal(complaint(module, "AssetList", form(assets)), "");
  console.log(`ok assetlist.json is an AssetList of ${module}`);
  // The judge is awake.
  assert.match(complaint(module, "Chain", form({ ...chain, status: "asleep" })), /asleep/);
  assert.match(complaint(module, "AssetList", form({ ...assets, coins: [] })), /coins/);
}

const [known, list] = [renamed(chain), [renamed(assets)]];
const found = registry.getChainByChainId([known], chain.chain_id);
assert.equal(found.chainName, assets.chain_name);
assert.equal(registry.getChainBech32Prefix([known], known.chainName), "remes");
const price = chain.fees.fee_tokens[0].fixed_min_gas_price;
const prices = registry.getGasPriceRangesFromChain(known);
assert.ok(price > 0 && prices.low >= price, JSON.stringify(prices));
assert.equal(registry.convertDisplayUnitToBaseUnit(list, "REMES", "1.5", known.chainName), "1500000");
assert.equal(registry.convertBaseUnitToDisplayUnitByDenom(list, "uremes", "2500000", known.chainName), "2.5");
assert.equal(registry.getSymbolByDenom(list, known.staking.stakingTokens[0].denom, known.chainName), "REMES");
console.log("ok the registry's functions find the chain, its prices and its coin");

const client = await StargateClient.connect(chain.apis.rpc[0].address);
assert.equal(await client.getChainId(), chain.chain_id);
client.disconnect();
const { genesis } = (await (await fetch(chain.codebase.genesis.genesis_url)).json()).result;
assert.equal(genesis.chain_id, chain.chain_id);
const config = await (await fetch(`${chain.apis.rest[0].address}/cosmos/base/node/v1beta1/config`)).json();
assert.equal(Number.parseFloat(config.minimum_gas_price), price);
console.log("ok what answers at its addresses is this chain");
