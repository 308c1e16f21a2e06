// Package pathmtu sends what is too big for the way: real sockets talk to services
// over routes that take less than the links at their ends.
package pathmtu

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }
