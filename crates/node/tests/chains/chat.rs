//! A conversation with a model that its operator brought and the network trained, over HTTP as any
//! client has it, and computed again by another home.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
};

use r3mes_inference::Receipt;
use r3mes_model::Tokenizer;
use r3mes_node::{config::Config, home};
use serde_json::{Value, json};

use super::{
    homes::{Home, json},
    training::{is_ready, join},
};

/// What is said to the model.
const SAID: &str = "once upon a time";
/// How the template of the checkpoint puts that, said by a user.
const RENDERED: &str = "user said: once upon a time\n";
/// Tokens of each answer.
const ANSWER: usize = 8;

/// A serving node joins, which is to serve the model `letters`; the base and what was trained on it
/// answer, both by the model's own template, and `verifier` computes both answers again.
pub(crate) fn is_held_with_the_registered_model(founder: &Home, verifier: &Home, folder: &Path) {
    let host = join(founder, folder, "serving", |home| {
        let mut config = config(home);
        let serving = config.roles.serving.as_mut().unwrap();
        serving.model = Some("letters".to_owned());
        let file = home::Home::new(&home.dir).config_file();
        fs::write(file, config.to_yaml()).unwrap();
    });
    let _running = host.spawn(&["--roles", "serving", "--chain", &founder.rpc]);
    is_ready(&host, "serving");
    let address = config(&host).roles.serving.unwrap().api_listen.unwrap();

    let tokenizer = Tokenizer::open(&folder.join("checkpoint/tokenizer.json")).unwrap();
    let prompt = tokenizer.encode(RENDERED).unwrap();
    for (model, trained) in [("letters", false), ("letters-tuned", true)] {
        let ask = json!({
            "model": model,
            "messages": [{"role": "user", "content": SAID}],
            "max_tokens": ANSWER,
            "temperature": 0.8,
            "seed": 3,
        });
        let (head, body) = exchange(address, "POST", "/v1/chat/completions", &ask.to_string());
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["role"], "assistant", "{answer}");
        assert_eq!(answer["usage"]["prompt_tokens"], prompt.len(), "{answer}");

        let named = header(&head, "x-r3mes-receipt");
        let (_, bytes) = exchange(address, "GET", named, "");
        let claim = Receipt::from_bytes(&bytes).unwrap().claim;
        assert_eq!(claim.prompt.to_vec(), prompt, "another template was used");
        assert_eq!(claim.adapter.is_some(), trained);

        let api = format!("http://{address}");
        let verified = json(&verifier.dir, &["verify", "answer", named, "--api", &api]);
        assert_eq!(verified["model"], "letters", "{verified}");
        assert_eq!(verified["prompt_tokens"], prompt.len(), "{verified}");
        assert_eq!(verified["answer_tokens"], ANSWER, "{verified}");
        assert_eq!(verified["adapter"].is_string(), trained, "{verified}");
    }
}

fn config(home: &Home) -> Config {
    Config::load(&home::Home::new(&home.dir)).unwrap()
}

/// Asks over HTTP: the head and the body of a good answer.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.unwrap() + 4);
    let head = String::from_utf8(answer).unwrap();
    let said = String::from_utf8_lossy(&body);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}{said}");
    (head, body)
}

/// A header of an answer.
fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.unwrap_or_else(|| panic!("{name} is not in {head}")).1
}
