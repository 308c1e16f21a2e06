package datapath

import (
	"testing"

	"github.com/ebb-lb/ebb/tests/rig"
)

// idle are rigs of the zero Config that no test has at the moment. To load the
// programs takes the better part of a second, most tests less, so a rig goes
// from test to test, emptied in between. The last ones end with the process.
var idle = make(chan *rig.Rig, 16)

// lend gives t a rig for its own until it ends.
func lend(t *testing.T) *rig.Rig {
	t.Helper()
	r, err := idleOrNew()
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = r.Close()
			return
		}
		r.Reset(t)
		select {
		case idle <- r:
		default:
			_ = r.Close()
		}
	})
	return r
}

func idleOrNew() (*rig.Rig, error) {
	select {
	case r := <-idle:
		return r, nil
	default:
		return rig.Open(rig.Config{})
	}
}
