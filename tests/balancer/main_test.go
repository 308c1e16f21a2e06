// Package balancer puts a real external balancer, HAProxy, in front of nodes: it
// asks their probes, and nobody who goes through it may lose anything.
package balancer

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }
