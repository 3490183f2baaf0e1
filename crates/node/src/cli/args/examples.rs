//! Examples under the help of the main commands.

pub(super) const INIT: &str = "\
Examples:
  r3mes init --roles miner,serving,validator,proposer    a network of your own, on this machine
  r3mes init --join http://10.0.0.1:26657 --roles miner  mine for a network that is there already
  r3mes init --join http://10.0.0.1:26657 --engine cometbft --roles validator
                                                         sign blocks for it, with a ledger here";

pub(super) const START: &str = "\
Examples:
  r3mes start                                       everything that config.yaml names
  r3mes start --roles miner --chain 10.0.0.1:26657  mine, by another machine's ledger
  r3mes start --services node,api                   the ledger and the public API, no roles";

pub(super) const TX: &str = "\
Examples:
  r3mes tx send remes1... 5000000uremes    pay 5 REMES
  r3mes tx register --roles miner,serving  register this node with these roles
  r3mes tx run example > run.yaml          a training run to fill in, and then:
  r3mes tx run start --config run.yaml
  r3mes query slashes                      what this node lost, and then, within the window:
  r3mes tx appeal 3 \"the disk failed, see the log of round 7\"
  r3mes tx unjail                          take part again after a jail term";

pub(super) const SET: &str = "\
Examples:
  r3mes query params                                         every parameter and what it is now
  r3mes tx proposal set nodes.unbonding=14d nodes.jail=1h    times: ms, s, m, h, d
  r3mes tx proposal set nodes.minimum_stakes.validator=200000000uremes
  r3mes tx proposal set governance.threshold=75%
  r3mes tx proposal set governance.authority=none            only votes decide from now on";

pub(super) const QUERY: &str = "\
Examples:
  r3mes query runs               which training runs there are
  r3mes query round 3 --run 1    who did what in round 3 of run 1
  r3mes query account remes1...  what an account has
  r3mes --json query nodes       every node, for programs
  r3mes query chain-registry --dir .  chain.json and assetlist.json, for wallets";

pub(super) const VERIFY: &str = "\
Examples:
  r3mes verify round 3 --replay  train round 3 of run 1 again, and compare every bit
  r3mes verify answer ID         the answer whose x-r3mes-receipt names ID, by this home's gateway
  r3mes verify balance remes1... --chain http://10.0.0.1:26657
                                 what the network's validators signed, whoever is asked";

pub(super) const GENERATE: &str = "\
Examples:
  r3mes generate \"Once upon a time\"
  r3mes generate --temperature 0 --max-tokens 20 \"The little dog\"
  r3mes --json generate --adapter FILE \"Once upon a time\"  with what a network trained";

pub(super) const FUNCTIONS: &str = "\
Examples:
  r3mes functions serve                              a gateway on port 8080 of this machine
  r3mes functions ca create ca --host gw.example.com certificates with which it speaks TLS
  r3mes functions token create alice --groups team   a token, shown once
  r3mes functions list                               what can be called
  r3mes functions call add '{\"a\": 2, \"b\": 3}'      call a function wherever it is";

pub(super) const DEMO: &str = "\
Examples:
  r3mes demo                         train for 12 rounds, then answer prompts until Ctrl-C
  r3mes demo --liar --check          one miner cheats; everything is checked, then it ends
  r3mes demo --keep --dir /tmp/demo  and while it runs: r3mes --home /tmp/demo/network query round";

pub(super) const TESTNET: &str = "\
Examples:
  r3mes testnet --dir /tmp/net                    four validators under CometBFT, here
  r3mes testnet --dir /tmp/net --check            one is killed and comes back; then it ends
  r3mes testnet --dir /tmp/net --hosts hosts.txt  homes to copy to other machines";
