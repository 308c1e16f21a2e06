package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// What Validate refuses would be changed on its way into the maps and back, or
// could match no packet. Everything that writes calls it first.

// maxName is the longest part of a ServicePort in bytes: one less than its
// field, so that a name always ends with NUL.
const maxName = 63

// maxVLAN is the highest tag a frame may have.
const maxVLAN = 4094

// Validate reports why f cannot be an entry.
func (f Frontend) Validate() error {
	if err := checkAddr(f.Addr); err != nil {
		return err
	}
	if f.Port == 0 {
		return errors.New("port 0")
	}
	return f.Proto.check()
}

// maxAffinity is the longest timeout the API allows (86400 s), with room.
const maxAffinity = 1 << 31 * time.Second

// Validate reports why s cannot be an entry.
func (s Service) Validate() error {
	if s.Affinity < 0 || s.Affinity > maxAffinity || s.Affinity%time.Second != 0 {
		return fmt.Errorf("affinity of %s: want whole seconds, at most %s", s.Affinity, maxAffinity)
	}
	return nil
}

// Validate reports why s cannot be an entry.
func (s ServicePort) Validate() error {
	for _, name := range []string{s.Namespace, s.Service, s.Port} {
		if len(name) > maxName {
			return fmt.Errorf("name %q has %d bytes, more than %d", name, len(name), maxName)
		}
		if strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("name %q has a NUL", name)
		}
	}
	return s.Proto.check()
}

// Validate reports why b cannot be an entry. A Free backend needs no address.
func (b Backend) Validate() error {
	if b.State > Gone {
		return fmt.Errorf("unknown %s", b.State)
	}
	if b.State == Free && !b.Addr.Addr().IsValid() {
		return nil
	}
	if err := checkAddr(b.Addr.Addr()); err != nil {
		return err
	}
	if b.Addr.Port() == 0 {
		return errors.New("port 0")
	}
	return nil
}

// Within reports an error unless id is an index into a map of that many
// backends.
func (id BackendID) Within(capacity uint32) error {
	if uint32(id) >= capacity {
		return fmt.Errorf("index is not below the capacity of %d backends", capacity)
	}
	return nil
}

// String formats t as "offset+length", and a table without candidates as "-".
func (t Table) String() string {
	if t.Length == 0 {
		return "-"
	}
	return fmt.Sprintf("%d+%d", t.Offset, t.Length)
}

// Check reports why t cannot be a region of slots, or cannot hold n of them.
func (t Table) Check(n int, capacity uint32) error {
	if n < 0 || uint64(n) != uint64(t.Length) {
		return fmt.Errorf("%d slots given for a table of %d", n, t.Length)
	}
	if end := uint64(t.Offset) + uint64(t.Length); end > uint64(capacity) {
		return fmt.Errorf("ends at %d, beyond the capacity of %d slots", end, capacity)
	}
	return nil
}

// Validate reports why k cannot be the key of a flow.
func (k FlowKey) Validate() error {
	return errors.Join(checkAddr(k.Src.Addr()), checkAddr(k.Dst.Addr()))
}

// Validate reports why f cannot be an entry.
func (f Flow) Validate() error {
	if f.Since < 0 {
		return fmt.Errorf("begun at %s", f.Since)
	}
	return errors.Join(checkAddr(f.Src.Addr()), checkAddr(f.Dst.Addr()))
}

// Validate reports why r cannot be an entry.
func (r Runtime) Validate() error {
	return errors.Join(checkSNAT(r.SNAT4, r.SNAT6), checkSpan(r.Services4, true), checkSpan(r.Services6, false))
}

// checkSpan refuses a span that is not of its family. One of all addresses is
// written as none.
func checkSpan(p netip.Prefix, v4 bool) error {
	if p == (netip.Prefix{}) {
		return nil
	}
	if err := checkPrefix(p); err != nil {
		return err
	}
	if p.Addr().Is4() != v4 || p.Bits() == 0 {
		return fmt.Errorf("span %s of services is of the other family, or of no length", p)
	}
	return nil
}

// checkSNAT reports why flows cannot have these sources; invalid ones are none.
func checkSNAT(snat4, snat6 netip.Addr) error {
	if snat4.IsValid() && (!snat4.Is4() || snat4.IsUnspecified()) {
		return fmt.Errorf("snat4 %s is not the address of an IPv4 node", snat4)
	}
	if !snat6.IsValid() {
		return nil
	}
	if !snat6.Is6() || snat6.IsUnspecified() || snat6.Is4In6() || snat6.Zone() != "" {
		return fmt.Errorf("snat6 %s is not the address of an IPv6 node", snat6)
	}
	return nil
}

// Validate reports why d cannot be an entry.
func (d Device) Validate() error {
	if d.VLAN > maxVLAN {
		return fmt.Errorf("VLAN tag %d is above %d", d.VLAN, maxVLAN)
	}
	return checkSNAT(d.SNAT4, d.SNAT6)
}

// Validate reports why s cannot be an entry: nobody has a group's address.
func (s Station) Validate() error {
	if s.VLAN > maxVLAN {
		return fmt.Errorf("VLAN tag %d is above %d", s.VLAN, maxVLAN)
	}
	if s.MAC == (MAC{}) || s.MAC[0]&1 != 0 {
		return fmt.Errorf("%s is not the MAC address of a device", s.MAC)
	}
	return nil
}

func (p Proto) check() error {
	if p != TCP && p != UDP && p != SCTP {
		return fmt.Errorf("%s is not balanced", p)
	}
	return nil
}

// checkAddr refuses what would not come back from a map as it went in.
func checkAddr(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("no address")
	case a.Is4In6():
		return fmt.Errorf("address %s is v4-mapped", a)
	case a.Zone() != "":
		return fmt.Errorf("address %s has a zone", a)
	}
	return nil
}
