// Package sockets tests programs on sockets with real ones: pods and processes of
// a node dial Services of an agent that runs on it.
package sockets

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) {
	playRole()
	suite.Run(m, &ebb)
}
