package reconcile

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/agent/plan"
	"github.com/ebb-lb/ebb/maps"
)

// CIDRs is a map of ranges.
type CIDRs interface {
	Put(netip.Prefix) error
	Delete(netip.Prefix) error
	All() (map[netip.Prefix]struct{}, error)
}

// setCIDRs makes ranges the content of m; first those to come, so that nothing
// in both is missing meanwhile.
func setCIDRs(m CIDRs, ranges []netip.Prefix) error {
	have, err := m.All()
	if err != nil {
		return err
	}
	want := make(map[netip.Prefix]struct{})
	for _, p := range ranges {
		want[p.Masked()] = struct{}{}
		if _, ok := have[p.Masked()]; !ok {
			err = errors.Join(err, m.Put(p.Masked()))
		}
	}
	for p := range have {
		if _, ok := want[p]; !ok {
			err = errors.Join(err, m.Delete(p))
		}
	}
	return err
}

// span is the smallest range of each family that contains all addresses of
// Services. It starts empty.
type span struct{ v4, v6 netip.Prefix }

// widen makes s contain p.
func (s *span) widen(p netip.Prefix) {
	if p.Addr().Is4() {
		s.v4 = common(s.v4, p)
	} else {
		s.v6 = common(s.v6, p)
	}
}

// common is the longest prefix that contains both; b if there is no a.
func common(a, b netip.Prefix) netip.Prefix {
	if !a.IsValid() {
		return b.Masked()
	}
	for bits := min(a.Bits(), b.Bits()); bits > 0; bits-- {
		if p := netip.PrefixFrom(a.Addr(), bits).Masked(); p.Contains(b.Addr()) {
			return p
		}
	}
	return netip.PrefixFrom(a.Addr(), 0).Masked()
}

// runtime returns s as the programs are told it: a family without addresses as
// one that no packet goes to, all addresses as none in particular.
func (s span) runtime() (v4, v6 netip.Prefix) {
	return told(s.v4, netip.IPv4Unspecified()), told(s.v6, netip.IPv6Unspecified())
}

func told(p netip.Prefix, nobody netip.Addr) netip.Prefix {
	switch {
	case !p.IsValid():
		return netip.PrefixFrom(nobody, nobody.BitLen())
	case p.Bits() == 0:
		return netip.Prefix{}
	}
	return p
}

// respan brings the span up to date after p was carried out, and tells the
// programs. Only where an address left, or a range may have, all are looked at.
func (l *Loop) respan(p plan.Plan, all bool) error {
	if all || l.span == nil || narrows(p) {
		l.span = &span{}
		for _, c := range l.cidrs {
			l.span.widen(c)
		}
		for a := range l.planner.ClusterIPs() {
			l.span.widen(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, op := range p.PutAddresses {
		if op.Flags&maps.AddressClusterIP != 0 {
			l.span.widen(netip.PrefixFrom(op.Addr, op.Addr.BitLen()))
		}
	}
	return l.setRuntime()
}

// narrows reports whether p may take a ClusterIP away.
func narrows(p plan.Plan) bool {
	return len(p.DeleteAddresses) > 0 || slices.ContainsFunc(p.PutAddresses, func(op plan.AddressWrite) bool {
		return op.Flags&maps.AddressClusterIP == 0
	})
}
