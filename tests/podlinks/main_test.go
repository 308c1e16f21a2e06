// Package podlinks has pods talk to services by what sits on their links: real
// sockets, agents on both nodes, and pods' networks of the usual kinds. No socket
// of a pod is translated here, and no range of pod addresses is configured.
package podlinks

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }
