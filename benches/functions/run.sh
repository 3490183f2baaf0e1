#!/usr/bin/env bash
# Remote functions beside nats-py, grpcio, Ray and easyremote, over loopback. usage: run.sh [--quick] [SIDE ...]
set -euo pipefail
cd "$(dirname "$0")"
if ! cmp -s requirements.txt .venv/requirements.txt; then
  echo "installing what is compared into benches/functions/.venv" >&2
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/requirements.txt
fi
../../tools/programs nats-server >&2
(cd ../../python && VIRTUAL_ENV=$OLDPWD/.venv "$OLDPWD/.venv/bin/maturin" develop --release --locked --quiet >&2)
# Built before anything is measured.
cargo bench --locked --quiet -p r3mes-functions --bench loopback --no-run >&2
exec .venv/bin/python compare.py "$@"
