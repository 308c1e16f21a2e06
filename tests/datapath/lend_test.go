package datapath

import (
	"sync"
	"testing"

	"github.com/ebb-lb/ebb/tests/rig"
)

// idle are rigs that no test has at the moment. To load the programs takes the
// better part of a second, ten where the machine is emulated, and most tests take
// less; so a rig goes from test to test, emptied in between. They end with the
// process.
var idle = struct {
	sync.Mutex
	rigs map[rig.Config][]*rig.Rig
}{rigs: make(map[rig.Config][]*rig.Rig)}

// lend gives t a rig of the zero Config for its own until it ends.
func lend(t *testing.T) *rig.Rig {
	t.Helper()
	return lendWith(t, rig.Config{})
}

// answering has every answer on that is off by default.
var answering = rig.Config{RejectTCPReset: true, ResetGone: true, VIPEcho: true}

// withAnswers returns answering or the zero Config.
func withAnswers(on bool) rig.Config {
	if on {
		return answering
	}
	return rig.Config{}
}

// lendWith is lend for another Config. The fewer there are, the less is loaded.
func lendWith(t *testing.T, cfg rig.Config) *rig.Rig {
	t.Helper()
	r := takeIdle(cfg)
	if r == nil {
		var err error
		if r, err = rig.Open(cfg); err != nil {
			t.Fatalf("%+v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = r.Close()
			return
		}
		r.Reset(t)
		r.ForgetGuests(t)
		idle.Lock()
		defer idle.Unlock()
		idle.rigs[cfg] = append(idle.rigs[cfg], r)
	})
	return r
}

// takeIdle returns nil if there is none.
func takeIdle(cfg rig.Config) *rig.Rig {
	idle.Lock()
	defer idle.Unlock()
	free := idle.rigs[cfg]
	if len(free) == 0 {
		return nil
	}
	idle.rigs[cfg] = free[:len(free)-1]
	return free[len(free)-1]
}
