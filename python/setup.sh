#!/usr/bin/env bash
# Makes python/.venv with what builds and tests the package, and builds the package into it.
set -euo pipefail
cd "$(dirname "$0")"
if ! cmp -s requirements.txt .venv/requirements.txt; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo "setup: the Python package needs Python 3.11 or newer. Install it, or leave it out with R3MES_SKIP_PYTHON=1." >&2; exit 1; }
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/requirements.txt
fi
VIRTUAL_ENV=$PWD/.venv .venv/bin/maturin develop --locked --quiet "$@"
