// Package holders knows which processes of this network namespace listen on which TCP
// ports, by /proc.
package holders

import (
	"net/netip"
	"slices"
)

// Process is one of those in /proc. The zero value is one that cannot be seen from here.
type Process struct {
	PID  int    `json:"pid,omitempty"`
	Name string `json:"name,omitempty"`
}

// Known reports whether the process can be seen.
func (p Process) Known() bool { return p.PID != 0 }

// Listener is a listening TCP socket.
type Listener struct {
	Addr  netip.AddrPort `json:"addr"`
	Owner Process        `json:"owner,omitzero"`
	inode uint64
}

// Named returns those of all whose name is one of names.
func Named(all []Process, names ...string) []Process {
	return slices.DeleteFunc(slices.Clone(all), func(p Process) bool { return !slices.Contains(names, p.Name) })
}
