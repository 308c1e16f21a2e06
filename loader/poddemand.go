package loader

import (
	"time"

	"github.com/vishvananda/netlink"
)

// demand is who needs programs on pods' links that are chosen on demand.
type demand uint8

const (
	demandUnknown demand = iota // nobody has said
	demanded
	demandEnds // nobody begins anything there, but what has begun may go on
	demandOver
)

// extent is which of the devices that are chosen have programs.
type extent uint8

const (
	extentNone extent = iota
	extentKept        // those that have them: nothing is attached, or updated
	extentAll
)

// loadPause is how long programs that the kernel has refused are not tried again.
const loadPause = time.Minute

// Need tells whether somebody needs the links that are chosen on demand. When it
// returns they have their programs, unless that failed, which is logged and tried
// again. When nobody needs them any more they keep them as long as they are used.
// It may be called from any goroutine.
func (p *PodLinks) Need(needed bool) {
	if !p.choice.OnDemand || !p.setDemand(needed) || p.uplinks.Load() == nil {
		return
	}
	if err := p.syncAndTell(); err != nil {
		p.log.Error("attaching to pods' links failed", "error", err, "retry", resync)
	}
}

// setDemand reports whether links have to be looked at at once.
func (p *PodLinks) setDemand(needed bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.demand
	switch {
	case needed:
		p.demand = demanded
	case was == demanded || was == demandUnknown:
		p.demand = demandEnds
	}
	return p.demand == demanded && was != demanded
}

// Used tells whether there are flows that act at pods' links. Links that nobody needs
// lose their programs once there are none.
func (p *PodLinks) Used(used bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.demand == demandEnds && !used {
		p.demand = demandOver
		p.wake()
	}
}

// extent says which devices have programs now. As long as nobody has said who needs
// them, those of an earlier agent are reason enough.
func (p *PodLinks) extent() (extent, error) {
	if !p.choice.OnDemand {
		return extentAll, nil
	}
	switch p.demand {
	case demanded:
		return extentAll, nil
	case demandOver:
		return extentNone, nil
	}
	left, err := p.attacher.holdsAny()
	switch {
	case !left:
		return extentNone, err
	case p.demand == demandUnknown:
		return extentAll, err
	}
	return extentKept, err
}

// attachIn returns what is done to each device.
func (p *PodLinks) attachIn(e extent) func(netlink.Link) {
	if e == extentAll {
		return p.attach
	}
	return func(netlink.Link) {}
}

// load has the programs loaded. What the kernel refuses takes it long, so that is
// logged, and not tried again for a while.
func (p *PodLinks) load() bool {
	if !p.choice.OnDemand || time.Now().Before(p.loadAgain) {
		return !p.unloaded
	}
	err := p.attacher.programs.loadPodLinks()
	p.unloaded = err != nil
	if err != nil {
		p.loadAgain = time.Now().Add(loadPause)
		p.log.Error("loading the programs for pods' links failed", "error", err, "retry", loadPause)
	}
	return err == nil
}
