package watch

import "github.com/ebb-lb/ebb/agent/service"

// Options are what every source is told.
type Options struct {
	// NodeName is the name of the Node object of the machine the agent is on.
	NodeName string
	// ServiceProxyName is the value of the label
	// service.kubernetes.io/service-proxy-name of the Services to deliver;
	// empty: those without the label.
	ServiceProxyName string
	// NodeLabels and NodeAnnotations are the keys the Store shall know of the
	// own Node, beside what service.Node has fields for.
	NodeLabels, NodeAnnotations []string
	// Contact is told when the source is in touch; nil: nobody asks.
	Contact *Contact
}

// unknownNode is the own node before the source has seen its object. Its name
// must be known all the same: it decides which endpoints are local.
func (o Options) unknownNode() service.Node { return service.Node{Name: o.NodeName} }
