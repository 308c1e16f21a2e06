// Package stations has clients talk to services on a wire with frames that are not all for
// the node that sees them, and by devices stacked on the uplink: virtual routers' MACs, VLANs,
// bonds. Real sockets, real agents.
package stations

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// ebb is the binary under test, built from the source beside this package.
var ebb string

func TestMain(m *testing.M) { suite.Run(m, &ebb) }
