// Package drain knows what takes a node out of the rotation of external
// balancers: signs on its Node object, and an order given on the node itself. It
// deliberately does no I/O and asks no clock, and knows nothing of probes:
// whoever answers them asks it.
package drain

import (
	"fmt"
	"time"

	"github.com/ebb-lb/ebb/agent/service"
)

// Rules say what makes a node drain, besides the deletion of its object.
type Rules struct {
	Signals []Signal
	// NeedObject: a node whose object the cluster does not have is drained. It
	// is not set where nobody has to say that a node exists.
	NeedObject bool
}

// Check reports whether a node is drained, and by what.
func (r Rules) Check(n service.Node) (reason string, drained bool) {
	if !n.Known && r.NeedObject {
		return "the cluster has no object of this node", true
	}
	if n.Deleting {
		return "the node's object is being deleted", true
	}
	for _, s := range r.Signals {
		if s.isOn(n) {
			return s.String(), true
		}
	}
	return "", false
}

// Order is what "ebb drain node" leaves on the node.
type Order struct {
	Reason string `json:"reason,omitempty"`
	// Given is when the order was given, Until when it ends; zero: never.
	Given time.Time `json:"given"`
	Until time.Time `json:"until,omitzero"`
}

// InForce reports whether the order holds at a time.
func (o Order) InForce(now time.Time) bool { return o.Until.IsZero() || now.Before(o.Until) }

// String says who drains the node, why and how long.
func (o Order) String() string {
	text := "ebb drain node"
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	if !o.Until.IsZero() {
		text += fmt.Sprintf(" (until %s)", o.Until.Format(time.RFC3339))
	}
	return text
}
