package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/ids"
	"github.com/ebb-lb/ebb/agent/maglev"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// builder takes the numbers a service needs. Until commit it changes nothing
// but the books of package ids.
type builder struct {
	*round
	name      service.Name
	old, next *owned
	writes    []TableWrite
	conflicts []error
	short     []error // what there was no room for
	noIndex   bool    // no index is left for another backend
	claimed   map[maps.Frontend]struct{}
	newRanges int
	// unheld are the service ports of the backends whose indexes were reused.
	unheld []maps.ServicePortID
}

func newBuilder(r *round, name service.Name) *builder {
	old := r.services[name]
	if old == nil {
		old = &owned{}
	}
	return &builder{
		round: r, name: name, old: old,
		next: &owned{
			ports:     make(map[maps.ServicePortID]*port),
			addresses: make(map[netip.Addr]maps.AddressFlags),
		},
		claimed: make(map[maps.Frontend]struct{}),
	}
}

// commit makes next what the service has.
func (b *builder) commit() {
	for _, id := range b.unheld {
		b.portIDs.Unhold(id)
	}
	b.round.commit(b.name, b.next, b.writes)
}

// build fills next. A port without a frontend of its own has no entries.
func (b *builder) build(ws []wanted) {
	for i, w := range ws {
		ws[i].internal, ws[i].external = b.claim(w.internal), b.claim(w.external)
	}
	b.fit(ws)
	for _, w := range ws {
		if len(w.internal)+len(w.external) > 0 {
			b.port(w)
		}
	}
}

// claim returns those of fs that nobody else has.
func (b *builder) claim(fs []maps.Frontend) []maps.Frontend {
	var won []maps.Frontend
	for _, f := range fs {
		owner, taken := b.owners[f]
		_, again := b.claimed[f]
		switch {
		case taken && owner != b.name:
			b.conflicts = append(b.conflicts, &ConflictError{Frontend: f, Owner: owner, Claimant: b.name})
			b.next.lost = append(b.next.lost, f)
		case again:
			b.conflicts = append(b.conflicts, &ConflictError{Frontend: f, Owner: b.name, Claimant: b.name})
		default:
			b.claimed[f] = struct{}{}
			won = append(won, f)
		}
	}
	return won
}

// port adds one service port to next.
func (b *builder) port(w wanted) {
	id, err := b.portID(w.name)
	if err != nil {
		b.lack(fmt.Errorf("plan service port %s: %w", w.name, err))
		return
	}
	pb := &portBuilder{
		builder: b, id: id, old: b.old.ports[id],
		port: &port{
			name: w.name, named: true,
			frontends: make(map[maps.Frontend]maps.Service),
			backends:  make(map[maps.BackendID]maps.Backend),
			ranges:    b.fitRanges(id, w),
		},
		choice:    w.choice,
		inCluster: addrs(w.choice.Cluster), inLocal: addrs(w.choice.Local),
		tables: make(map[tableKey]maps.Table),
	}
	b.next.ports[id] = pb.port
	b.addresses(w)
	pb.fill(w)
}

func (b *builder) portID(name maps.ServicePort) (maps.ServicePortID, error) {
	if id, ok := b.portIDs.Lookup(name); ok {
		return id, nil
	}
	return b.portIDs.Take(name)
}

// portBuilder fills one service port.
type portBuilder struct {
	*builder
	id     maps.ServicePortID
	old    *port // nil: there was none
	port   *port
	choice endpoints.Choice
	tables map[tableKey]maps.Table
	// inCluster and inLocal are the candidates of the two policies.
	inCluster, inLocal map[netip.AddrPort]struct{}
}

func addrs(eps []service.Endpoint) map[netip.AddrPort]struct{} {
	set := make(map[netip.AddrPort]struct{}, len(eps))
	for _, e := range eps {
		set[e.Addr] = struct{}{}
	}
	return set
}

// tableKey names a table of a service port.
type tableKey struct {
	local, v4 bool
}

func (b *portBuilder) fill(w wanted) {
	for _, f := range w.internal {
		v := b.service(w, f)
		v.InternalLocal = w.choice.InternalLocal
		v.Cluster = b.table(w, v.InternalLocal, f.Addr)
		b.port.frontends[f] = v
	}
	for _, f := range w.external {
		v := b.service(w, f)
		v.ExternalLocal, v.Restricted = w.choice.ExternalLocal, w.restricted(f)
		if v.Restricted {
			v.PodsIn, v.PodsOut = admitsPods(w.ranges, b.in.PodCIDRs, f.Addr.Is4())
		}
		v.NodePort = w.isNodePort(f, b.in.nodePortAddrs())
		v.Cluster = b.table(w, false, f.Addr)
		if v.ExternalLocal {
			v.Local = b.table(w, true, f.Addr)
		}
		b.port.frontends[f] = v
	}
	b.drain(w.choice.All)
}

// service is what all frontends of the service port have in common.
func (b *portBuilder) service(w wanted, f maps.Frontend) maps.Service {
	return maps.Service{
		ServicePort: b.id, Affinity: w.affinity, Packet: w.byPacket, HasEndpoints: w.choice.HasAny(f.Addr.Is4()),
	}
}

// table returns the table of the local or cluster candidates of the family of
// addr. All frontends of the service port share it.
func (b *portBuilder) table(w wanted, local bool, addr netip.Addr) maps.Table {
	key := tableKey{local: local, v4: addr.Is4()}
	if t, ok := b.tables[key]; ok {
		return t
	}
	candidates := w.choice.Cluster
	if local {
		candidates = w.choice.Local
	}
	wants := ofFamily(candidates, addr)
	members := b.members(wants)
	if len(members) == 0 && len(wants) > 0 {
		members = b.members(b.standIns(w.choice.All, local, addr))
	}
	b.tables[key] = b.region(members)
	return b.tables[key]
}

// members gives each endpoint a backend, as long as there are indexes, and
// returns those, sorted.
func (b *portBuilder) members(eps []service.Endpoint) []maps.BackendID {
	members := make([]maps.BackendID, 0, len(eps))
	for _, e := range eps {
		id, generation, ok := b.index(e)
		if !ok {
			continue
		}
		state := maps.Draining
		if e.Ready {
			state = maps.Active
		}
		b.port.backends[id] = b.backend(e, generation, state)
		members = append(members, id)
	}
	slices.Sort(members)
	return members
}

// drain keeps the backends of endpoints that are no candidates but still
// there. An endpoint that never was a candidate has none.
func (b *portBuilder) drain(eps []service.Endpoint) {
	for _, e := range eps {
		id, generation, ok := b.backendIDs.Lookup(b.key(e))
		if _, done := b.port.backends[id]; ok && !done {
			b.port.backends[id] = b.backend(e, generation, maps.Draining)
		}
	}
}

func (b *portBuilder) key(e service.Endpoint) ids.BackendKey {
	return ids.BackendKey{Port: b.id, Addr: e.Addr}
}

func (b *portBuilder) backend(e service.Endpoint, generation uint32, state maps.State) maps.Backend {
	_, inCluster := b.inCluster[e.Addr]
	_, inLocal := b.inLocal[e.Addr]
	return maps.Backend{
		Addr: e.Addr, State: state, Generation: generation, ServicePort: b.id,
		Local:     endpoints.IsLocal(e, b.in.NodeName),
		Elsewhere: e.NodeName != "" && !endpoints.IsLocal(e, b.in.NodeName),
		InCluster: inCluster, InLocal: inLocal, Unserving: b.choice.Leaves(e),
	}
}

func (b *portBuilder) take(e service.Endpoint) (ids.Lease, error) {
	lease, err := b.backendIDs.Take(b.key(e))
	if err != nil {
		return lease, err
	}
	// The entry keeps the id of its service port from being given to another.
	b.portIDs.Hold(b.id)
	if lease.Reused {
		b.unheld = append(b.unheld, lease.Previous.Port)
	}
	return lease, nil
}

// region returns a region that holds members: one in use if there is, else a
// fresh one. The content of a region in use is never changed.
func (b *portBuilder) region(members []maps.BackendID) maps.Table {
	if len(members) == 0 {
		return maps.Table{}
	}
	same := func(t table) bool { return slices.Equal(t.members, members) }
	if i := slices.IndexFunc(b.port.regions, same); i >= 0 {
		return b.port.regions[i].at
	}
	if t, ok := b.keep(members); ok {
		b.port.regions = append(b.port.regions, t)
		return t.at
	}
	at, err := b.regions.Take(maglev.Size(len(members)))
	if err != nil {
		b.lack(fmt.Errorf("plan service port %s: %w", b.port.name, err))
		return b.makeshift(members)
	}
	return b.write(at, members)
}

// write fills at, which was just taken.
func (b *portBuilder) write(at maps.Table, members []maps.BackendID) maps.Table {
	b.port.regions = append(b.port.regions, table{at: at, members: members})
	b.writes = append(b.writes, TableWrite{Service: b.name, Table: at, Slots: b.slots(members, at.Length)})
	return at
}

// keep looks for a region of the service port with exactly these members. One
// found at the start must also be filled as it would be now.
func (b *portBuilder) keep(members []maps.BackendID) (table, bool) {
	if b.old == nil {
		return table{}, false
	}
	for _, t := range b.old.regions {
		if !slices.Equal(t.members, members) || t.at.Length != maglev.Size(len(members)) {
			continue
		}
		if t.found == nil || slices.Equal(t.found, b.slots(members, t.at.Length)) {
			return table{at: t.at, members: t.members}, true
		}
	}
	return table{}, false
}

// slots fills a table of that size by the addresses of the members, which every node knows
// by the same name.
func (b *portBuilder) slots(members []maps.BackendID, size uint32) []maps.BackendID {
	names := make([]string, len(members))
	for i, id := range members {
		names[i] = b.port.backends[id].Addr.String()
	}
	filled := maglev.Build(names, size)
	slots := make([]maps.BackendID, len(filled))
	for i, m := range filled {
		slots[i] = members[m]
	}
	return slots
}
