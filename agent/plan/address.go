package plan

import (
	"iter"
	stdmaps "maps"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// book is whose the addresses of services are. Several may share one, and what
// it is then is all that it is to any of them. It keeps the flags of services
// only: who else writes to the map has flags of its own.
type book struct {
	written map[netip.Addr]maps.AddressFlags
	owners  map[netip.Addr]map[service.Name]maps.AddressFlags
	// touched are the addresses that services took or gave up since the last
	// plan, and one of those services each.
	touched map[netip.Addr]service.Name
}

func newBook(have map[netip.Addr]maps.AddressFlags) book {
	b := book{
		written: stdmaps.Clone(have),
		owners:  make(map[netip.Addr]map[service.Name]maps.AddressFlags),
		touched: make(map[netip.Addr]service.Name),
	}
	if b.written == nil {
		b.written = make(map[netip.Addr]maps.AddressFlags)
	}
	return b
}

// replace makes next the addresses of a service that had old.
func (b *book) replace(name service.Name, old, next map[netip.Addr]maps.AddressFlags) {
	for a := range old {
		if _, stays := next[a]; !stays {
			b.touched[a] = name
			if delete(b.owners[a], name); len(b.owners[a]) == 0 {
				delete(b.owners, a)
			}
		}
	}
	for a, f := range next {
		b.touched[a] = name
		if b.owners[a] == nil {
			b.owners[a] = make(map[service.Name]maps.AddressFlags)
		}
		b.owners[a][name] = f
	}
}

// plan notes what is to be written. In a full plan, what was found and is
// nobody's goes too.
func (b *book) plan(full bool, p *Plan) {
	if full {
		for a := range b.written {
			if _, known := b.touched[a]; !known {
				b.touched[a] = service.Name{Name: unnamed}
			}
		}
	}
	for _, a := range slices.SortedFunc(stdmaps.Keys(b.touched), netip.Addr.Compare) {
		b.planOne(a, b.touched[a], p)
	}
	clear(b.touched)
}

func (b *book) planOne(a netip.Addr, toucher service.Name, p *Plan) {
	var want maps.AddressFlags
	for _, f := range b.owners[a] {
		want |= f
	}
	switch {
	case want == b.written[a]:
	case want == 0:
		p.DeleteAddresses = append(p.DeleteAddresses, AddressWrite{Service: toucher, Addr: a})
		delete(b.written, a)
	default:
		owner := slices.MinFunc(slices.Collect(stdmaps.Keys(b.owners[a])), service.Name.Compare)
		p.PutAddresses = append(p.PutAddresses, AddressWrite{Service: owner, Addr: a, Flags: want})
		b.written[a] = want
	}
}

// ClusterIPs returns the ClusterIPs that are in the map once the last plan is
// carried out.
func (p *Planner) ClusterIPs() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for a, f := range p.book.written {
			if f&maps.AddressClusterIP != 0 && !yield(a) {
				return
			}
		}
	}
}

// addresses is whose the addresses of a service port's frontends are. Those of
// node ports are the node's, whatever else they are to other services.
func (b *builder) addresses(w wanted) {
	for _, f := range w.internal {
		b.next.addresses[f.Addr] |= maps.AddressClusterIP
	}
	for _, f := range w.external {
		if w.outside(f.Addr) {
			b.next.addresses[f.Addr] |= maps.AddressExternal
		}
	}
}
