//! HTTP: node RPC, trustless blob gateway, OpenAI-compatible API, metrics.
