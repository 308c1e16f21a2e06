// Package topology tests the real agent on real devices: processes, sockets and
// programs in a lab of network namespaces.
package topology

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }
