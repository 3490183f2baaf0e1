#!/usr/bin/env bash
# Installs the outside clients that the tests use, into tests/clients/.venv. Run it once.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
.venv/bin/python -c 'import cosmpy, mcp, openai, pyarrow.flight; print("openai", openai.__version__)'
