//go:build tools

// Package programs pins the program that tools/programs builds from this module.
package programs

import _ "github.com/nats-io/nats-server/v2"
