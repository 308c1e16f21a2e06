// Package sourceports keeps the source ports of flows sent to other nodes apart
// from those the kernel gives to the node's own sockets. It knows the kernel's
// settings about them, and what an agent has changed there; it knows no flow.
package sourceports

import "fmt"

// least is how many ports sockets keep where the two ranges overlap. A machine
// with the kernel's default range has 28232.
const least = 4096

// usual is what flows get unless another range is asked for, spare where it is
// looked for if the sockets have no others. Neither has ports of services (0 to
// 1023) or node ports.
var (
	usual     = Range{1024, 29999}
	spare     = SetOf(usual, Range{32768, 65535})
	nodePorts = SetOf(Range{30000, 32767})
)

// Node is what the kernel gives to sockets.
type Node struct {
	Ephemeral Range // net.ipv4.ip_local_port_range
	Reserved  Set   // by others than the agent: net.ipv4.ip_local_reserved_ports
}

// Choice is what flows get, and what sockets must not.
type Choice struct {
	Ports   Range
	Reserve Set // of Ports, what sockets would be given
	Left    int // ports sockets may be given
	// Warnings are what an operator should know, a sentence each.
	Warnings []string
}

// Choose decides about the source ports of flows. want is what the operator asked
// for; the zero Range: nothing, so any that suits the node. The error says what
// would suit it.
func Choose(want Range, n Node) (Choice, error) {
	if want == (Range{}) {
		return chooseAny(n), nil
	}
	c, ok := take(want, n)
	if !ok {
		return Choice{}, fmt.Errorf("--snat-ports %s leaves the node's sockets %d ports (net.ipv4.ip_local_port_range %s), which is less than %d: "+
			"widen net.ipv4.ip_local_port_range, or use --snat-ports %s", want, c.Left, n.Ephemeral, least, chooseAny(n).Ports)
	}
	if dialled := SetOf(want).And(nodePorts); dialled.Len() > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("--snat-ports %s contains ports that Kubernetes gives to node ports by default (%s): "+
			"choose a range without them, or make sure that the API server has another --service-node-port-range", want, dialled))
	}
	return c, nil
}

// chooseAny takes the usual range, unless it leaves sockets too few: then the
// largest they are not given anyway.
func chooseAny(n Node) Choice {
	c, ok := take(usual, n)
	if ok {
		return c
	}
	var largest Range
	for _, r := range spare.Without(SetOf(n.Ephemeral)).Ranges() {
		if r.Max-r.Min >= largest.Max-largest.Min {
			largest = r
		}
	}
	if SetOf(largest).Len() < least {
		c.Reserve, c.Left = Set{}, sockets(n).Len()
		c.Warnings = []string{fmt.Sprintf("the node's sockets need all ports there are (net.ipv4.ip_local_port_range %s without the reserved %s): flows sent to other nodes share %s with them",
			n.Ephemeral, n.Reserved, usual)}
		return c
	}
	c, _ = take(largest, n)
	c.Warnings = []string{fmt.Sprintf("the usual %s would leave the node's sockets less than %d ports (net.ipv4.ip_local_port_range %s): flows sent to other nodes get %s",
		usual, least, n.Ephemeral, largest)}
	return c
}

// sockets are the ports they may be given.
func sockets(n Node) Set { return SetOf(n.Ephemeral).Without(n.Reserved) }

// take gives flows these ports. False: that would leave sockets too few.
func take(ports Range, n Node) (Choice, bool) {
	mine := SetOf(ports)
	c := Choice{Ports: ports, Reserve: mine.And(SetOf(n.Ephemeral)), Left: sockets(n).Without(mine).Len()}
	return c, c.Reserve == (Set{}) || c.Left >= least
}

// Reserve returns what sockets must not be given where flows have these ports.
// False: that would leave them too few, and they share.
func Reserve(ports Range, n Node) (Set, bool) {
	c, ok := take(ports, n)
	if !ok {
		return Set{}, false
	}
	return c.Reserve, true
}
