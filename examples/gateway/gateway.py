"""A gateway in a Python program. It takes port 8080 unless R3MES_EXAMPLE_PORT names another."""

import os

from easyremote import Server
from fastapi import FastAPI

# Simple gateway setup
app = FastAPI()
server = Server(port=int(os.environ.get("R3MES_EXAMPLE_PORT", 8080)))

# Gateway automatically:
# 1. Accepts ComputeNode registrations
# 2. Creates API endpoints for registered functions
# 3. Routes client requests to appropriate nodes
# 4. Handles load balancing and health monitoring

if __name__ == "__main__":
    server.run()
