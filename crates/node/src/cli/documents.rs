//! Every command that the documents and `deploy/` name, held against the command line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory, Parser};
use serde_json::Value;

use super::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of a folder, whose names end so, by their paths from the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: Vec<String> = names
        .filter(|name| name.ends_with(ending))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    assert!(!found.is_empty(), "{folder} has no file *{ending}");
    found
}

/// What the shell makes of a line's first command, if its words hold neither quotes within quotes nor
/// variables.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut word = String::new();
    for character in line.chars().chain([' ']) {
        match (quote, character) {
            (Some(end), _) if end == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '|' | '>' | '<' | ';' | '&') => break,
            (None, '#') if word.is_empty() => break,
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => words.push(std::mem::take(&mut word)),
            _ => word.push(character),
        }
    }
    words
}

/// The command lines of `r3mes` in a document: in its code, and between backticks.
fn named(document: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut code = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if code {
            let words = words(line.trim_start_matches("$ "));
            // Also on another machine: `ssh HOST r3mes start`.
            let begins = words.iter().position(|word| word == "r3mes");
            let alone = begins == Some(0) || words.first().is_some_and(|word| word == "ssh");
            found.extend(begins.filter(|_| alone).map(|at| words[at..].to_vec()));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            let spans = spans.filter(|span| span.starts_with("r3mes "));
            // A purpose that something is hashed for is no command: `r3mes inference receipt v1`.
            let commands = spans.filter(|span| !span.split(' ').any(|word| word == "v1"));
            found.extend(commands.map(words));
        }
    }
    found
}

/// What is wrong with a command line as documents write it: values may be placeholders, and all but the
/// command may be left out.
fn wrong(words: &[String]) -> Option<String> {
    let mut whole = Cli::command();
    whole.build();
    let mut at = &whole;
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix("--") {
            let name = flag.split('=').next().unwrap_or_default();
            let Some(flag) = at
                .get_arguments()
                .find(|flag| flag.get_long() == Some(name))
            else {
                return Some(format!("{} has no --{name}", at.get_name()));
            };
            if flag.get_action().takes_values() && !word.contains('=') {
                words.next();
            }
        } else if let Some(inner) = at.find_subcommand(word) {
            at = inner;
        } else if at.get_positionals().next().is_none() && word != "..." {
            return Some(format!("{} does not know {word:?}", at.get_name()));
        }
    }
    None
}

#[test]
fn documents_name_only_commands_that_are_there() {
    let mut documents = files("docs", ".md");
    documents.extend(files("docs/spec", ".md"));
    documents.extend(["README.md".to_owned(), "ARCHITECTURE.md".to_owned()]);
    let mut checked = 0;
    let mut mistakes = Vec::new();
    for document in documents {
        for words in named(&read(&document)) {
            checked += 1;
            let wrong =
                wrong(&words).map(|wrong| format!("{document}: {}: {wrong}", words.join(" ")));
            mistakes.extend(wrong);
        }
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    assert!(checked > 50, "only {checked} commands were found");
    let no_such = "r3mes query round 3 --nobody";
    assert!(wrong(&words(no_such)).is_some(), "nothing is checked");
}

/// Passes a command line of `deploy/` if the program accepts it as it stands.
fn accept(place: &str, arguments: impl IntoIterator<Item = String>) {
    let line = ["r3mes".to_owned()].into_iter().chain(arguments);
    if let Err(refusal) = Cli::try_parse_from(line) {
        panic!("{place}: {refusal}");
    }
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list of words").iter();
    list.map(|word| word.as_str().expect("a word").to_owned())
        .collect()
}

#[test]
fn units_and_containers_start_what_the_program_accepts() {
    for unit in files("deploy/systemd", ".service") {
        let text = read(&unit);
        let start = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        let start = start.unwrap_or_else(|| panic!("{unit} starts nothing"));
        let words = words(&start.replace("%i", "miner"));
        assert_eq!(words[0], "/usr/local/bin/r3mes", "{unit}");
        accept(&unit, words[1..].iter().cloned());
    }

    let compose: Value = serde_saphyr::from_str(&read("deploy/compose.yaml")).unwrap();
    let services = compose["services"].as_object().expect("services");
    assert!(services.contains_key("node") && services.contains_key("api"));
    for (name, service) in services {
        accept(name, strings(&service["command"]));
        if let Some(test) = service["healthcheck"]["test"].as_array() {
            assert_eq!(test[..2], ["CMD", "r3mes"], "{name}");
            accept(name, strings(&service["healthcheck"]["test"]).split_off(2));
        }
    }

    let image = read("deploy/Containerfile");
    let instruction = |name: &str| {
        let mut lines = image.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("the image has no {name}"))
    };
    let mut start = strings(&serde_json::from_str(instruction("ENTRYPOINT")).unwrap());
    start.extend(strings(&serde_json::from_str(instruction("CMD")).unwrap()));
    assert_eq!(start.remove(0), "r3mes");
    accept("the image", start);
    let compiler = concat!("FROM rust:", env!("CARGO_PKG_RUST_VERSION"), "-slim ");
    assert!(image.contains(compiler), "not built as {compiler}");
}

fn variables(command: &Command, found: &mut BTreeSet<String>) {
    let named = command
        .get_arguments()
        .filter_map(|argument| argument.get_env());
    found.extend(named.map(|name| name.to_string_lossy().into_owned()));
    for inner in command.get_subcommands() {
        variables(inner, found);
    }
}

#[test]
fn units_and_containers_set_only_variables_that_are_read() {
    // Where programs are searched for, and where tools/programs puts them.
    let mut known = BTreeSet::from(["R3MES_PROGRAMS".to_owned()]);
    variables(&Cli::command(), &mut known);
    let mut places = files("deploy/systemd", ".service");
    places.extend([
        "deploy/compose.yaml".to_owned(),
        "deploy/Containerfile".to_owned(),
    ]);
    let mut checked = 0;
    for place in places {
        let text = read(&place);
        let names =
            text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        for name in names.filter(|name| name.starts_with("R3MES_")) {
            checked += 1;
            assert!(known.contains(name), "{place}: nothing reads {name}");
        }
    }
    assert!(checked > 0, "no variable was found");
}
