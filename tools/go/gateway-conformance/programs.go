//go:build tools

// Package programs pins the program that tools/programs builds from this module.
package programs

import (
	_ "github.com/ipfs/gateway-conformance/cmd/gateway-conformance"
	_ "github.com/ipfs/gateway-conformance/tests"

	// What the tests import beside that.
	_ "github.com/ipfs/gateway-conformance/tooling/dnslink"
	_ "github.com/ipfs/gateway-conformance/tooling/helpers"
	_ "github.com/ipfs/gateway-conformance/tooling/ipns"
	_ "github.com/ipfs/gateway-conformance/tooling/tmpl"
)
