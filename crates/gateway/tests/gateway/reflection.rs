//! grpcurl, which nobody here wrote and which knows nothing of ours, finds out by reflection what a node
//! answers, and asks for it.

use std::path::PathBuf;

use r3mes_gateway::rpc::TxClient;
use r3mes_types::Amount;
use serde_json::{Value, json};
use tokio::process::Command;

use super::cosmos::Served;
use super::outside::{printed, program};
use super::rpc::{key, send};

/// A node, asked by grpcurl.
struct Asked {
    program: PathBuf,
    address: String,
}

impl Asked {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-plaintext", "-max-time", "60"])
            .args(arguments);
        command
    }

    async fn list(&self, more: &[&str]) -> Vec<String> {
        let arguments = [&[&self.address, "list"], more].concat();
        let names = printed(self.command(&arguments)).await;
        names.lines().map(str::to_owned).collect()
    }

    /// The answer of a method.
    async fn call(&self, method: &str, question: Value) -> Value {
        let question = question.to_string();
        let answer = printed(self.command(&["-d", &question, &self.address, method])).await;
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_finds_every_service_by_reflection_and_none_of_them_is_empty() {
    let Some(program) = program("grpcurl") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let asked = Asked {
        program,
        address: served.grpc.clone(),
    };
    let services = asked.list(&[]).await;
    let ours = [
        "auth",
        "bank",
        "beacon",
        "data",
        "escrow",
        "governance",
        "models",
        "nodes",
        "rewards",
        "training",
    ];
    let ours = ours.map(|domain| format!("r3mes.{domain}.v1.Query"));
    let others = [
        "cosmos.auth.v1beta1.Query",
        "cosmos.bank.v1beta1.Query",
        "cosmos.base.node.v1beta1.Service",
        "cosmos.base.tendermint.v1beta1.Service",
        "cosmos.consensus.v1.Query",
        "cosmos.tx.v1beta1.Service",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    let expected: Vec<String> = others.map(str::to_owned).into_iter().chain(ours).collect();
    assert_eq!(services, expected);

    // Whatever is told of is answered, if only with what is wrong with an empty question.
    let mut methods = 0;
    for service in services.iter().filter(|name| !name.starts_with("grpc.")) {
        for method in asked.list(&[service]).await {
            let mut command = asked.command(&["-d", "{}", &served.grpc, &method]);
            let answer = command.output().await.unwrap();
            let complaint = String::from_utf8_lossy(&answer.stderr);
            // Without a code it is grpcurl that does not understand what it was told.
            let is_refused = complaint.contains("Code: ")
                && !complaint.contains("Code: Unimplemented")
                && !complaint.contains("Code: Internal");
            assert!(
                answer.status.success() || is_refused,
                "{method}: {complaint}"
            );
            methods += 1;
        }
    }
    assert!(methods > 40, "{methods}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_reads_answers_and_transactions_by_what_reflection_tells() {
    let Some(program) = program("grpcurl") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let asked = Asked {
        program,
        address: served.grpc.clone(),
    };
    let (from, to) = (key(1), key(2));
    let sender = TxClient::new(served.node.client(), from.clone());
    let sent = sender
        .send(send(&from, &to, Amount::remes(1)))
        .await
        .unwrap();

    let me = json!({"address": from.address().to_string()});
    let account = asked
        .call("cosmos.auth.v1beta1.Query/Account", me.clone())
        .await;
    let account = &account["account"];
    assert_eq!(account["@type"], "/cosmos.auth.v1beta1.BaseAccount");
    assert_eq!(account["sequence"], "1");
    let balances = asked
        .call("cosmos.bank.v1beta1.Query/AllBalances", me.clone())
        .await;
    assert_eq!(balances["balances"][0]["denom"], "uremes");
    let own = asked.call("r3mes.bank.v1.Query/Balance", me).await;
    assert_eq!(own["amount"], balances["balances"][0]["amount"]);

    // The message inside is read by what reflection tells of its type.
    let hash = hex::encode(sent.hash);
    let found = asked
        .call("cosmos.tx.v1beta1.Service/GetTx", json!({"hash": hash}))
        .await;
    let message = &found["tx"]["body"]["messages"][0];
    assert_eq!(message["@type"], "/cosmos.bank.v1beta1.MsgSend");
    assert_eq!(message["toAddress"], to.address().to_string());
    assert_eq!(found["txResponse"]["height"], sent.height.to_string());

    let height = json!({"height": sent.height.to_string()});
    let block = asked
        .call(
            "cosmos.base.tendermint.v1beta1.Service/GetBlockByHeight",
            height,
        )
        .await;
    assert_eq!(block["block"]["header"]["chainId"], "rpc-1");
    assert_eq!(block["block"]["data"]["txs"].as_array().unwrap().len(), 2);
    let node = asked
        .call(
            "cosmos.base.tendermint.v1beta1.Service/GetNodeInfo",
            json!({}),
        )
        .await;
    assert_eq!(node["defaultNodeInfo"]["network"], "rpc-1");
    let config = asked
        .call("cosmos.base.node.v1beta1.Service/Config", json!({}))
        .await;
    assert_eq!(config["minimumGasPrice"], "0.001000uremes");
    let params = asked
        .call("cosmos.consensus.v1.Query/Params", json!({}))
        .await;
    assert_eq!(
        params["params"]["validator"]["pubKeyTypes"],
        json!(["ed25519"])
    );
}
