// Fetches a CID with Helia and prints the SHA-256 of what came.
//
// usage: node verified_fetch.mjs ROUTER CID
//
// Where the bytes are is asked of the router alone: no libp2p, no public gateways.

import { createHash } from 'node:crypto'
import { withHTTP } from '@helia/http'
import { createVerifiedFetchWithHelia } from '@helia/verified-fetch'
import { createHeliaLight } from 'helia'

const [router, cid] = process.argv.slice(2)
// Nodes speak plain HTTP, and those of a test on this machine.
const helia = await withHTTP(createHeliaLight(), {
  delegatedRouters: [router],
  recursiveGateways: [],
  allowInsecure: true,
  allowLocal: true
}).start()
const verifiedFetch = await createVerifiedFetchWithHelia(helia)
const answer = await verifiedFetch(`ipfs://${cid}`)
const bytes = Buffer.from(await answer.arrayBuffer())
if (!answer.ok) {
  throw new Error(`${answer.status} ${answer.statusText}: ${bytes}`)
}
console.log(createHash('sha256').update(bytes).digest('hex'))
await verifiedFetch.stop()
await helia.stop()
