// Package plan turns what the cluster should look like into an ordered list of
// map writes. It is pure: it knows the content of the maps because it was
// told once and wrote all the rest itself, it does no I/O and asks no clock.
// It deliberately does not know how a write is done, or whether it was.
//
// The order of the writes is the correctness of a load balancer:
//
//   - remove what points: frontends nobody claims any more, then the addresses
//     on which there is no other;
//   - write what is pointed at: service ports, backends, then tables, each
//     into a fresh region of slots, and the source ranges that let clients in;
//   - flip what points: each frontend by one atomic replacement of its value;
//   - retire: backends that left become gone, ranges and names nobody uses any
//     more are deleted;
//   - last, addresses: other ports of a known ClusterIP are rejected, so it must
//     not be known before all its frontends are there. Nothing waits for them,
//     and no service suffers if one cannot be written;
//   - after a grace period, in a later plan, reuse what nothing points at.
//
// The invariant, true after every prefix of a plan, also when writes fail: each
// frontend in the maps points to completely written tables, every slot of which
// names a backend that is active or draining and belongs to the frontend's
// service port. A region or an index that a frontend leads to, or led to less
// than Grace ago, is never given another content.
package plan

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Grace is how long what a frontend pointed to is kept as it was. A packet
// that saw the old value has long been sent by then.
const Grace = 2 * time.Second

// Plan is an ordered list of writes: field after field, each from first to
// last. Each write names the service it is done for; if one fails, the later
// ones of its service must be skipped, and see FrontendPut.From.
type Plan struct {
	DeleteFrontends    []FrontendDelete
	DeleteAddresses    []AddressWrite
	PutServicePorts    []ServicePortPut
	PutBackends        []BackendPut
	WriteTables        []TableWrite
	PutRanges          []RangeWrite
	PutFrontends       []FrontendPut
	RetireBackends     []BackendPut
	DeleteRanges       []RangeWrite
	DeleteServicePorts []ServicePortDelete
	PutAddresses       []AddressWrite
}

// FrontendDelete removes a frontend.
type FrontendDelete struct {
	Service  service.Name
	Frontend maps.Frontend
}

// ServicePortPut writes the name behind an id.
type ServicePortPut struct {
	Service service.Name
	ID      maps.ServicePortID
	Port    maps.ServicePort
}

// BackendPut writes a backend. In Plan.RetireBackends its state is Gone.
type BackendPut struct {
	Service service.Name
	ID      maps.BackendID
	Backend maps.Backend
}

// TableWrite fills a region. Slots has the table's length.
type TableWrite struct {
	Service service.Name
	Table   maps.Table
	Slots   []maps.BackendID
}

// RangeWrite puts or deletes a source range. While ranges change, clients of the
// old ones and of the new ones are let in.
type RangeWrite struct {
	Service service.Name
	Range   maps.SourceRange
}

// AddressWrite puts or deletes what an address is to services. One that several
// share is written for one of them.
type AddressWrite struct {
	Service service.Name
	Addr    netip.Addr
	Flags   maps.AddressFlags // in Plan.PutAddresses
}

// FrontendPut replaces the value of a frontend.
type FrontendPut struct {
	Service service.Name
	// From is the service the frontend belongs to until this write; the zero
	// Name if it is the same or none. As long as the write is not done the
	// frontend leads to backends of From: none of them may be retired.
	From     service.Name
	Frontend maps.Frontend
	Value    maps.Service
}

// ServicePortDelete removes the name behind an id.
type ServicePortDelete struct {
	Service service.Name
	ID      maps.ServicePortID
}

// Len returns the number of writes.
func (p Plan) Len() int {
	return len(p.DeleteFrontends) + len(p.PutServicePorts) + len(p.PutBackends) + len(p.WriteTables) +
		len(p.PutRanges) + len(p.PutFrontends) + len(p.RetireBackends) + len(p.DeleteRanges) +
		len(p.DeleteServicePorts) + len(p.DeleteAddresses) + len(p.PutAddresses)
}

// Empty reports whether there is nothing to write.
func (p Plan) Empty() bool { return p.Len() == 0 }

// String formats p as one line per write, in order.
func (p Plan) String() string {
	var b strings.Builder
	for _, op := range p.DeleteFrontends {
		fmt.Fprintf(&b, "delete frontend %s for %s\n", op.Frontend, op.Service)
	}
	for _, op := range p.DeleteAddresses {
		fmt.Fprintf(&b, "delete address %s for %s\n", op.Addr, op.Service)
	}
	for _, op := range p.PutServicePorts {
		fmt.Fprintf(&b, "put service port %d %s for %s\n", op.ID, op.Port, op.Service)
	}
	for _, op := range p.PutBackends {
		writeBackend(&b, "put", op)
	}
	for _, op := range p.WriteTables {
		fmt.Fprintf(&b, "write table %s %s for %s\n", op.Table, shares(op.Slots), op.Service)
	}
	for _, op := range p.PutRanges {
		writeRange(&b, "put", op)
	}
	for _, op := range p.PutFrontends {
		writeFrontend(&b, op)
	}
	for _, op := range p.RetireBackends {
		writeBackend(&b, "retire", op)
	}
	for _, op := range p.DeleteRanges {
		writeRange(&b, "delete", op)
	}
	for _, op := range p.DeleteServicePorts {
		fmt.Fprintf(&b, "delete service port %d for %s\n", op.ID, op.Service)
	}
	for _, op := range p.PutAddresses {
		fmt.Fprintf(&b, "put address %s %s for %s\n", op.Addr, op.Flags, op.Service)
	}
	return b.String()
}

func writeBackend(w io.Writer, verb string, op BackendPut) {
	local := ""
	if op.Backend.Local {
		local = " local"
	}
	fmt.Fprintf(w, "%s backend %d %s %s%s generation=%d port=%d for %s\n", verb, op.ID, op.Backend.Addr,
		op.Backend.State, local, op.Backend.Generation, op.Backend.ServicePort, op.Service)
}

func writeRange(w io.Writer, verb string, op RangeWrite) {
	fmt.Fprintf(w, "%s source range %s port=%d for %s\n", verb, op.Range.Prefix, op.Range.ServicePort, op.Service)
}

func writeFrontend(w io.Writer, op FrontendPut) {
	policy := "cluster"
	if op.Value.ExternalLocal {
		policy = "local"
	}
	fmt.Fprintf(w, "put frontend %s port=%d policy=%s cluster=%s local=%s for %s", op.Frontend,
		op.Value.ServicePort, policy, op.Value.Cluster, op.Value.Local, op.Service)
	if op.From != (service.Name{}) {
		fmt.Fprintf(w, " from %s", op.From)
	}
	fmt.Fprintln(w)
}

// shares formats slots as "3:84 5:167": backend and number of its slots.
func shares(slots []maps.BackendID) string {
	count := make(map[maps.BackendID]int)
	for _, id := range slots {
		count[id]++
	}
	var parts []string
	for _, id := range distinct(slots) {
		parts = append(parts, fmt.Sprintf("%d:%d", id, count[id]))
	}
	return strings.Join(parts, " ")
}
