package loader

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// XDPMode says on which uplinks the XDP program runs. TC programs run on every
// uplink whatever the mode: they are complete, XDP only accelerates.
type XDPMode uint8

// The XDP modes.
const (
	// XDPAuto takes native XDP on physical devices whose driver accepts it.
	XDPAuto XDPMode = iota
	// XDPNative wants native XDP on every uplink; a refusal is an error.
	XDPNative
	// XDPGeneric runs the program in the kernel's generic (SKB) mode.
	XDPGeneric
	// XDPOff runs no XDP program.
	XDPOff
)

// xdpModeNames returns the names of the modes, by mode.
func xdpModeNames() []string {
	return []string{XDPAuto: "auto", XDPNative: "native", XDPGeneric: "generic", XDPOff: "off"}
}

// String returns the mode as the flag --xdp takes it.
func (m XDPMode) String() string {
	if names := xdpModeNames(); int(m) < len(names) {
		return names[m]
	}
	return fmt.Sprintf("xdpmode(%d)", uint8(m))
}

// ParseXDPMode is the inverse of String.
func ParseXDPMode(s string) (XDPMode, error) {
	for m, name := range xdpModeNames() {
		if s == name {
			return XDPMode(m), nil
		}
	}
	return 0, fmt.Errorf("xdp mode %q: must be auto, native, generic or off", s)
}

// UnknownFlow is what becomes of the middle of a connection that belongs to no flow.
type UnknownFlow uint8

// What may become of it.
const (
	// UnknownReset answers TCP with a RST and SCTP with an ABORT.
	UnknownReset = UnknownFlow(bpf.TCUnknownFlowUNKNOWN_RESET)
	// UnknownDrop drops it silently.
	UnknownDrop = UnknownFlow(bpf.TCUnknownFlowUNKNOWN_DROP)
	// UnknownPass leaves it to the host's stack.
	UnknownPass = UnknownFlow(bpf.TCUnknownFlowUNKNOWN_PASS)
	// UnknownPeer sends TCP on to the node its backend is on, and answers what cannot go there.
	UnknownPeer = UnknownFlow(bpf.TCUnknownFlowUNKNOWN_PEER)
)

// unknownFlowNames returns the names of the values, by value.
func unknownFlowNames() []string {
	return []string{UnknownReset: "reset", UnknownDrop: "drop", UnknownPass: "pass", UnknownPeer: "peer"}
}

// String returns the value as the flag --unknown-flow takes it.
func (u UnknownFlow) String() string {
	if names := unknownFlowNames(); int(u) < len(names) {
		return names[u]
	}
	return fmt.Sprintf("unknownflow(%d)", uint8(u))
}

// ParseUnknownFlow is the inverse of String.
func ParseUnknownFlow(s string) (UnknownFlow, error) {
	for u, name := range unknownFlowNames() {
		if s == name {
			return UnknownFlow(u), nil
		}
	}
	return 0, fmt.Errorf("unknown flows: %q: must be reset, drop, pass or peer", s)
}

// Config is what is fixed in the programs when they are loaded.
type Config struct {
	// XDP: with XDPOff the XDP program is not loaded at all.
	XDP XDPMode
	// PodLinks: the programs for pods' links are loaded too.
	PodLinks bool
	// SNATMin and SNATMax bound the source ports of flows sent to other nodes,
	// both included. They must not overlap the host's ephemeral ports.
	SNATMin, SNATMax uint16
	// UnknownFlow is what becomes of the middle of a TCP or SCTP connection that
	// belongs to no flow and cannot be continued.
	UnknownFlow UnknownFlow
	// RejectRate is how many packets a second each CPU may answer with one of
	// its own, an ICMP error or a RST; 0: none.
	RejectRate uint32
	// RejectTCPReset answers refused TCP with a RST instead of an ICMP error.
	RejectTCPReset bool
	// ResetGone answers established TCP whose backend is gone with a RST; else
	// it is still sent there.
	ResetGone bool
	// VIPEcho answers pings of load balancer addresses and external IPs.
	VIPEcho bool
	// Sockets: without it no program of sockets is loaded.
	Sockets bool
	// PodsByPacket leaves all sockets of pods to programs on their links.
	PodsByPacket bool
}

// MaxRejectRate is the highest RejectRate.
const MaxRejectRate = 1_000_000

// validate reports every setting the programs could not work with.
func (c Config) validate() error {
	var errs []error
	if c.SNATMin == 0 {
		errs = append(errs, errors.New("first SNAT port is 0"))
	}
	if c.SNATMin > c.SNATMax {
		errs = append(errs, fmt.Errorf("SNAT ports %d-%d: the range is empty", c.SNATMin, c.SNATMax))
	}
	if c.RejectRate > MaxRejectRate {
		errs = append(errs, fmt.Errorf("%d answers a second are more than %d", c.RejectRate, MaxRejectRate))
	}
	if int(c.XDP) >= len(xdpModeNames()) {
		errs = append(errs, fmt.Errorf("unknown XDP mode %s", c.XDP))
	}
	if int(c.UnknownFlow) >= len(unknownFlowNames()) {
		errs = append(errs, fmt.Errorf("unknown flows: %s", c.UnknownFlow))
	}
	return errors.Join(errs...)
}

// variable is one cfg_* constant of the programs.
type variable struct {
	name  string
	value any
}

// clockVariables tell the programs how long a tick is.
func clockVariables(hz uint32) []variable {
	return []variable{{"cfg_tick_shift", TickShift(hz)}, {"cfg_hz", hz}}
}

// variables returns the settings as bpf/abi/config.h names and types them.
func (c Config) variables(hz uint32) []variable {
	return append(clockVariables(hz), []variable{
		{"cfg_snat_min", c.SNATMin},
		{"cfg_snat_max", c.SNATMax},
		{"cfg_unknown_flow", uint8(c.UnknownFlow)},
		{"cfg_xdp_generic", flag(c.XDP == XDPGeneric)},
		{"cfg_answer_interval", c.answerInterval()},
		{"cfg_reject_reset", flag(c.RejectTCPReset)},
		{"cfg_gone_reset", flag(c.ResetGone)},
		{"cfg_vip_echo", flag(c.VIPEcho)},
		{"cfg_pods_by_packet", flag(c.PodsByPacket)},
	}...)
}

// answerInterval is the time between two answers in nanoseconds.
func (c Config) answerInterval() uint64 {
	if c.RejectRate == 0 {
		return 0
	}
	return uint64(time.Second) / uint64(c.RejectRate)
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// setVariables writes vars into spec. A variable the object does not have is an
// error: agent and object do not belong together.
func setVariables(spec *ebpf.CollectionSpec, vars []variable) error {
	for _, v := range vars {
		target, ok := spec.Variables[v.name]
		if !ok {
			return fmt.Errorf("set %s: the object has no such variable", v.name)
		}
		if err := target.Set(v.value); err != nil {
			return fmt.Errorf("set %s: %w", v.name, err)
		}
	}
	return nil
}
