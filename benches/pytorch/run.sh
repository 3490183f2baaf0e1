#!/usr/bin/env bash
# A LoRA training step here and in PyTorch on the processor. usage: run.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")"
if ! cmp -s requirements.txt .venv/requirements.txt; then
  echo "installing PyTorch into benches/pytorch/.venv" >&2
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/requirements.txt
fi
for threads in 1 2; do
  .venv/bin/python step.py "$threads" "${1:-12}"
done
