package maps

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	stdmaps "maps"
	"net/netip"
	"slices"
	"strings"
)

// Reader is what Dump reads: a Set, or a fake.
type Reader interface {
	Contents() (Contents, error)
	EachFlow(fn func(FlowKey, Flow) bool) error
	EachHalfOpen(fn func(FlowKey, Flow) bool) error
	EachClosed(fn func(FlowKey, Flow) bool) error
	EachAffinity(fn func(AffinityKey, Affinity) bool) error
	EachSocket(fn func(SocketKey, SocketPeer) bool) error
}

// Dump writes what is in the maps, a line per entry, grouped by map and sorted
// within. It shows no time and no count of packets: the same content is the
// same text. Flows are kept in memory to be sorted.
func Dump(w io.Writer, r Reader) error {
	c, err := r.Contents()
	if err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	flows, err := flowLines("flow", r.EachFlow)
	if err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	half, err := flowLines("half-open", r.EachHalfOpen)
	if err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	closed, err := flowLines("closed", r.EachClosed)
	if err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	sticky, err := c.affinityLines(r.EachAffinity)
	if err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	sockets, err := socketLines(r.EachSocket)
	if err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	out := bufio.NewWriter(w)
	for _, lines := range [][]string{
		c.frontendLines(), c.servicePortLines(), c.backendLines(), c.tableLines(),
		c.sourceRangeLines(), c.serviceCIDRLines(), c.securedLines(), c.addressLines(),
		flows, half, closed, sticky, sockets, c.runtimeLines(), c.deviceLines(),
		c.stationLines(),
	} {
		for _, line := range lines {
			fmt.Fprintln(out, line)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("dump maps: %w", err)
	}
	return nil
}

// sortedLines is a line for each entry of m, in the order of the keys.
func sortedLines[K comparable, V any](m map[K]V, order func(a, b K) int, line func(K, V) string) []string {
	var out []string
	for _, k := range slices.SortedFunc(stdmaps.Keys(m), order) {
		out = append(out, line(k, m[k]))
	}
	return out
}

func (c Contents) frontendLines() []string {
	return sortedLines(c.Frontends, Frontend.Compare, func(f Frontend, s Service) string {
		return fmt.Sprintf("frontend %s service=%s policy=%s cluster=%s local=%s%s",
			f, c.name(s.ServicePort), s.policy(), s.Cluster, s.Local, s.extras())
	})
}

func (s Service) policy() string {
	switch {
	case s.ExternalLocal:
		return "local"
	case s.InternalLocal:
		return "internal-local"
	}
	return "cluster"
}

// extras is what most frontends do not have.
func (s Service) extras() string {
	var out string
	if s.Restricted {
		out += " restricted"
	}
	if s.PodsIn {
		out += " pods-in"
	}
	if s.PodsOut {
		out += " pods-out"
	}
	if s.Packet {
		out += " packet"
	}
	if s.Affinity > 0 {
		out += " affinity=" + s.Affinity.String()
	}
	if !s.HasEndpoints {
		out += " no-endpoints"
	}
	return out
}

func (c Contents) sourceRangeLines() []string {
	return sortedLines(c.SourceRanges, SourceRange.Compare, func(r SourceRange, _ struct{}) string {
		return fmt.Sprintf("source-range %s service=%s", r.Prefix, c.name(r.ServicePort))
	})
}

func (c Contents) serviceCIDRLines() []string {
	return sortedLines(c.ServiceCIDRs, netip.Prefix.Compare, func(p netip.Prefix, _ struct{}) string {
		return "service-cidr " + p.String()
	})
}

func (c Contents) securedLines() []string {
	return sortedLines(c.Secured, netip.Prefix.Compare, func(p netip.Prefix, _ struct{}) string {
		return "secured " + p.String()
	})
}

func (c Contents) addressLines() []string {
	return sortedLines(c.Addresses, netip.Addr.Compare, func(a netip.Addr, f AddressFlags) string {
		return fmt.Sprintf("address %s %s", a, f)
	})
}

// affinityLines leaves out the time, as flows do.
func (c Contents) affinityLines(each func(func(AffinityKey, Affinity) bool) error) ([]string, error) {
	all := make(map[AffinityKey]Affinity)
	err := each(func(k AffinityKey, a Affinity) bool {
		all[k] = a
		return true
	})
	if err != nil {
		return nil, err
	}
	return sortedLines(all, compareAffinityKeys, func(k AffinityKey, a Affinity) string {
		return fmt.Sprintf("affinity %s service=%s backend=%d gen=%d",
			k.Client, c.name(k.ServicePort), a.Backend, a.Generation)
	}), nil
}

// socketLines leaves out the time, as flows do.
func socketLines(each func(func(SocketKey, SocketPeer) bool) error) ([]string, error) {
	all := make(map[SocketKey]SocketPeer)
	err := each(func(k SocketKey, p SocketPeer) bool {
		all[k] = p
		return true
	})
	if err != nil {
		return nil, err
	}
	return sortedLines(all, compareSocketKeys, func(k SocketKey, p SocketPeer) string {
		what := "connects-to"
		if k.Way == SocketBackend {
			what = "shown-as"
		}
		return fmt.Sprintf("socket %d %s %s %s %s backend=%d gen=%d netns=%d",
			k.Cookie, k.Proto, k.Addr, what, p.Addr, p.Backend, p.Generation, p.Netns)
	}), nil
}

func compareSocketKeys(a, b SocketKey) int {
	return cmp.Or(cmp.Compare(a.Cookie, b.Cookie), cmp.Compare(a.Way, b.Way), cmp.Compare(a.Proto, b.Proto), a.Addr.Compare(b.Addr))
}

// name is the name of a service port, "#7" if there is none for its id.
func (c Contents) name(id ServicePortID) string {
	if s, ok := c.ServicePorts[id]; ok {
		return s.String()
	}
	return fmt.Sprintf("#%d", id)
}

func (c Contents) servicePortLines() []string {
	return sortedLines(c.ServicePorts, cmp.Compare, func(id ServicePortID, s ServicePort) string {
		return fmt.Sprintf("service-port %d %s", id, s)
	})
}

func (c Contents) backendLines() []string {
	return sortedLines(c.Backends, cmp.Compare, func(id BackendID, b Backend) string {
		where := "remote"
		if b.Local {
			where = "local"
		}
		line := fmt.Sprintf("backend %d %s state=%s %s gen=%d service=%s in=%s",
			id, b.Addr, b.State, where, b.Generation, c.name(b.ServicePort), b.candidacies())
		for _, f := range []struct {
			on   bool
			name string
		}{{b.Unserving, "unserving"}, {b.Moved, "moved"}} {
			if f.on {
				line += " " + f.name
			}
		}
		return line
	})
}

// candidacies lists the policies b is a candidate of; "-" if there is none.
func (b Backend) candidacies() string {
	switch {
	case b.InCluster && b.InLocal:
		return "cluster,local"
	case b.InCluster:
		return "cluster"
	case b.InLocal:
		return "local"
	}
	return "-"
}

func (c Contents) tableLines() []string {
	order := func(a, b Table) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	}
	return sortedLines(c.Tables, order, func(t Table, slots []BackendID) string {
		return "table " + t.String() + " " + shares(slots)
	})
}

// shares lists how many of the slots each backend has.
func shares(slots []BackendID) string {
	count := make(map[BackendID]int)
	for _, id := range slots {
		count[id]++
	}
	return strings.Join(sortedLines(count, cmp.Compare, func(id BackendID, n int) string {
		return fmt.Sprintf("%d:%d", id, n)
	}), " ")
}

// flowLines is a line for each flow that each has, under the given word.
func flowLines(word string, each func(func(FlowKey, Flow) bool) error) ([]string, error) {
	flows := make(map[FlowKey]Flow)
	err := each(func(k FlowKey, f Flow) bool {
		flows[k] = f
		return true
	})
	if err != nil {
		return nil, err
	}
	return sortedLines(flows, compareFlowKeys, func(k FlowKey, f Flow) string {
		return fmt.Sprintf("%s %s becomes %s > %s backend=%d gen=%d flags=%s",
			word, k, f.Src, f.Dst, f.Backend, f.Generation, f.Flags)
	}), nil
}

func compareFlowKeys(a, b FlowKey) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst))
}

func (c Contents) runtimeLines() []string {
	r := c.Runtime
	return []string{fmt.Sprintf("runtime snat4=%s snat6=%s services4=%s services6=%s",
		orDash(r.SNAT4), orDash(r.SNAT6), orDash(r.Services4), orDash(r.Services6))}
}

func orDash[T interface {
	IsValid() bool
	String() string
}](v T) string {
	if !v.IsValid() {
		return "-"
	}
	return v.String()
}

func (c Contents) deviceLines() []string {
	return sortedLines(c.Devices, cmp.Compare, func(ifindex uint32, d Device) string {
		line := fmt.Sprintf("device %d", ifindex)
		if d.Lower != 0 || d.VLAN != 0 {
			line += fmt.Sprintf(" lower=%d vlan=%d", d.Lower, d.VLAN)
		}
		if d.XDPTx {
			line += " xdp-tx"
		}
		if d.Away {
			line += " away"
		}
		if d.SNAT4.IsValid() || d.SNAT6.IsValid() {
			line += fmt.Sprintf(" snat4=%s snat6=%s", orDash(d.SNAT4), orDash(d.SNAT6))
		}
		if d.Answers {
			line += " answers-only"
		}
		if d.Stacked {
			line += " stacked"
		}
		return line
	})
}

func (c Contents) stationLines() []string {
	return sortedLines(c.Stations, Station.Compare, func(s Station, owner uint32) string {
		return fmt.Sprintf("station %s device=%d", s, owner)
	})
}
