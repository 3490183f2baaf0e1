//! Every encoding has a pinned hash: what it covers is signed, hashed or stored, and must not change.

use r3mes_types::{Hash, Message};

use crate::samples::{messages, records};

const PINNED: &[(&str, &str)] = &[
    (
        "/cosmos.bank.v1beta1.MsgSend",
        "308371a20c0211136144ee393921b08143037b38ff5ae5b0bfd912a6addd4457",
    ),
    (
        "/r3mes.bank.v1.MsgFaucet",
        "cc06527e12f4368b0db45b4c7658590bd1d48bb090d5bdfc3e07daba21f8a264",
    ),
    (
        "/r3mes.auth.v1.MsgGrant",
        "061523697d4feca69e418dc270cde8004a077822c4970e8281f207cf06f9c68e",
    ),
    (
        "/r3mes.auth.v1.MsgRevoke",
        "872c7accf8155c169d322c3c158f2ee3ec19fdbd30d6f9d199623bc40372ebf2",
    ),
    (
        "/r3mes.auth.v1.MsgGrantFees",
        "f76cf10dd46afaf6b97f739b9417f8afbf786eeb0e247afe9697c3b1f7e66c59",
    ),
    (
        "/r3mes.auth.v1.MsgRevokeFees",
        "872c7accf8155c169d322c3c158f2ee3ec19fdbd30d6f9d199623bc40372ebf2",
    ),
    (
        "/r3mes.beacon.v1.MsgRegisterChain",
        "e2fe44e9255d4127ba6debfb8706f12aa6d65b1882fe3d23c427eaa431eb4c7c",
    ),
    (
        "/r3mes.nodes.v1.MsgRegister",
        "8cd1d005b5566376d3ff981e7cd1170e99df7b99a96ba4ae6bffe15225e21e99",
    ),
    (
        "/r3mes.nodes.v1.MsgUpdate",
        "8cd1d005b5566376d3ff981e7cd1170e99df7b99a96ba4ae6bffe15225e21e99",
    ),
    (
        "/r3mes.nodes.v1.MsgLeave",
        "4364ea51bc49ef3d134e6c7cf531ce88aea68e9188c70d1875ccc7c731b4a677",
    ),
    (
        "/r3mes.nodes.v1.MsgUnjail",
        "4364ea51bc49ef3d134e6c7cf531ce88aea68e9188c70d1875ccc7c731b4a677",
    ),
    (
        "/r3mes.nodes.v1.MsgAppeal",
        "d887a91c5175988937b5972e07578b996a851b5d4085c123b966572f90408b8a",
    ),
    (
        "/r3mes.models.v1.MsgRegisterModel",
        "d2add86646223ce4de5088e247a586f1e753518fb5c23ca18c78788c0cfa9ab2",
    ),
    (
        "/r3mes.data.v1.MsgProposeDataset",
        "74c1e7f1294637e1a2e114fc2588c743557d1092d156f530addcb223853f8191",
    ),
    (
        "/r3mes.data.v1.MsgVoteDataset",
        "e0e35055688cc71d7d18e252e76a72b6a6f7d64048d881a6d0a7c60488c8bd32",
    ),
    (
        "/r3mes.governance.v1.MsgPropose",
        "a78824feee51f5fbef108f26aba6553a95a7b06cd7d97c356e487c7caf1605e0",
    ),
    (
        "/r3mes.governance.v1.MsgVote",
        "e0e35055688cc71d7d18e252e76a72b6a6f7d64048d881a6d0a7c60488c8bd32",
    ),
    (
        "/r3mes.escrow.v1.MsgOpen",
        "b7f3dee3cb9f5edc0ce6bb6e63e8cb26fed8fef3ee93629122e86509916cfd00",
    ),
    (
        "/r3mes.escrow.v1.MsgCharge",
        "f3c4a50dfbc5507d409ce809845568ff5317cc89baed5ba2eab36b50db27ebb2",
    ),
    (
        "/r3mes.escrow.v1.MsgClose",
        "9eb61e8a614abfc6b1855e0f72386c3ce2d47127ea6cd8062ef5871474e85018",
    ),
    (
        "tx.TxRaw",
        "9080be569b829ca13a187db87e59b6097d8fd51c579701ec3340951ca63fac7d",
    ),
    (
        "auth.Account",
        "39dadd86b304d37d42ac6eb2259d86d646d8dafef3f37399720f7cf2eb687fe5",
    ),
    (
        "auth.Grants",
        "0cff2dcb737689af9cad2a144fc068a99d67d0a96208b82c0d9ffbe858389f4b",
    ),
    (
        "auth.AuthParams",
        "f174d5740358a8c284a8c8948b49604855ebfc8aaa82a9dfe088e00db8c8c2cd",
    ),
    (
        "bank.Balances",
        "e3b1cfa9ac60865dd800b81936fe8fe73b86416c7e88f3a73f66ec64089679ea",
    ),
    (
        "bank.BankParams",
        "a8ed62885dcb8e645c73e8e39706257ee653fff0bf804002ca40ed3cf51cee09",
    ),
    (
        "beacon.MsgReveal",
        "7ae6f1308704933955d0e990927611e792434e291382ccc7db61dec21a98f932",
    ),
    (
        "beacon.MsgReveal with a next chain",
        "ef3ab9ef2fa66e03dbca5aa0bb08b94b458003d4cbd103598e70fb88f91dadc5",
    ),
    (
        "beacon.Chain",
        "a78fb241e9427470efec0794217b8cdf1b9d53b231e2c822c7ea765fc62f296d",
    ),
    (
        "beacon.Mixes",
        "8f0018d5a2df828fbacbe9cf880d7bdb6c8daf5c4a6cbd44496e9db5c7d05e75",
    ),
    (
        "query.PageRequest",
        "76037e422c9536d9254f7127061542589387492b7fac9540800ef154e3e64920",
    ),
    (
        "nodes.Node",
        "9803e0e7c7c3aa6de171e1edb93c8c1b7f0e51c11d89948db64e15d67e8b7968",
    ),
    (
        "nodes.Lock",
        "ba543c34855b7f0104652b3efcb754c70a4b485a090ac21eb53f0e87f0d37ead",
    ),
    (
        "nodes.Slash",
        "9634d7c4304c30747f80306ada4ed9576402fd3623f815a92712ad782a4beb3f",
    ),
    (
        "nodes.NodesParams",
        "76669a74a1a7fb4bbede0b644ea1134697e913f9eebff09594e4e0780248260c",
    ),
    (
        "models.Model",
        "9e877f303a49d14597b2ced5da27c7752b3c7b192b5c1316a89be5310b4cbc4a",
    ),
    (
        "models.Version",
        "a0b029064bebb8b4a50e1a9b7fabea0251e8f2fb46838fc3f0accb0e04dac195",
    ),
    (
        "data.Dataset",
        "3a9a7ba09d82923ef241aab6f717f004d580c5ec11685b310a62f3c01c8881c8",
    ),
    (
        "data.DataParams",
        "48dd30d45496314ef753b28794e6319ce25e3b416a9c5b3d3ee9522c0a719129",
    ),
    (
        "governance.Proposal",
        "0569af8c4e641c954d77940c28ac6a12d4aa27e17fdc74c682ff80e89a41f169",
    ),
    (
        "governance.GovernanceParams",
        "420e096d1ddee1243c645d6ddf4edfe0f7157944bf57d5346b6644f6d73bf8e6",
    ),
    (
        "rewards.RewardsParams",
        "fef292794821728e578a57c0299ccadd61b5ced3b71aa6b761b870adbb19d7e4",
    ),
    (
        "rewards.Vesting",
        "05619a98814285d3cdc78d959f4edc450ee89d174a4b2cb41b11b30c6f05fc75",
    ),
    (
        "escrow.Escrow",
        "cfc58dce0a38844ec88f9f122107551346979ab48634f6ed68df6f6c48d6b210",
    ),
    (
        "escrow.VoucherContent",
        "c411a180be78a7266ba4fa76d543e3559ce9dbb10730b6ec76f0ee2928cf2874",
    ),
];

fn found() -> Vec<(String, String)> {
    let messages = messages()
        .into_iter()
        .map(|message| (message.type_url(), message.encode()));
    messages
        .chain(records())
        .map(|(name, bytes)| (name.to_owned(), Hash::of(&bytes).to_string()))
        .collect()
}

#[test]
fn every_encoding_is_pinned() {
    let found = found();
    let pinned: Vec<(String, String)> = PINNED
        .iter()
        .map(|(name, hash)| (name.to_string(), hash.to_string()))
        .collect();
    let listing: Vec<String> = found
        .iter()
        .map(|(name, hash)| format!("    (\"{name}\", \"{hash}\"),"))
        .collect();
    assert!(
        found == pinned,
        "the hashes are now:\n{}",
        listing.join("\n")
    );
}

#[test]
fn every_message_has_a_sample_and_decodes_to_itself() {
    for message in messages() {
        let decoded = Message::decode(message.type_url(), &message.encode()).unwrap();
        assert_eq!(decoded, message);
    }
    let sampled: Vec<&str> = messages().iter().map(Message::type_url).collect();
    // Training has samples of its own, beside its rules.
    for url in Message::type_urls().filter(|url| !url.starts_with("/r3mes.training.")) {
        assert!(sampled.contains(&url), "no sample of {url}");
    }
}
