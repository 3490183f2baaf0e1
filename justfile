# Commands of everyday work. `just` lists them.

# List the commands.
default:
    @just --list

# Build the program.
build:
    cargo build --release --locked

# Run the program as it stands in the sources, built quickly and with its checks: `just dev demo`.
dev *args:
    cargo run --locked -p r3mes-node -- {{args}}

# Run a whole network on this machine.
demo *args:
    cargo run --release --locked -- demo {{args}}

# Pass every test.
test:
    tools/test

# Run every example of examples/ against a real gateway and real nodes; a line for each.
examples *names:
    tools/examples {{names}}

# Pass the tests with programs and libraries that nobody here wrote; a line for each.
clients:
    tools/clients

# Formatting, lints, documentation and dependency rules.
lint:
    tools/lint

# Make a wheel of the Python package with the command in it: for x86_64 or aarch64, or `--check`.
wheel *args:
    tools/wheel {{args}}

# Compare golden hashes over back ends and processor families.
golden:
    tools/golden

# Run every benchmark and print the tables of docs/benchmarks.md.
bench:
    tools/bench

# Open the code's documentation.
docs:
    cargo doc --workspace --no-deps --open
