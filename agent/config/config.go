// Package config is the agent's configuration: flags, environment and file
// become one checked value. It knows names, defaults and allowed values; it
// deliberately knows nothing of what they do.
package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/ebb-lb/ebb/agent/conntrack"
	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

// Config is what an agent is started with. It is a value; nothing changes it
// after Resolve.
type Config struct {
	Source     Source
	Kubeconfig string // empty: in-cluster
	// KubeAPI are where the API server is, each a URL or the path of a kubeconfig
	// that names it; none: where Kubeconfig or the pod's environment says.
	KubeAPI  []string
	NodeName string
	// ServiceProxyName is the value of the label
	// service.kubernetes.io/service-proxy-name of the Services to balance;
	// empty: those without the label.
	ServiceProxyName string
	Uplinks          []string // empty: automatic
	PodLinks         PodLinks
	XDP              string // "auto", "native", "generic", "off"
	BPFFS            string
	// MetricsAddr and HealthAddr are host:port; empty: not served.
	MetricsAddr, HealthAddr string
	Health                  Health
	// SNATPorts are the source ports of flows sent to other nodes; zero: those
	// that suit the node.
	SNATPorts PortRange
	// UnknownFlow is what becomes of the middle of a connection that belongs to
	// no flow: "reset", "drop", "pass", "peer".
	UnknownFlow string
	Answers     Answers
	// OnBackendGone is what becomes of established TCP whose endpoint is gone:
	// KeepGone or ResetGone.
	OnBackendGone string
	// NodePorts are the node's addresses that accept node ports.
	NodePorts service.NodePortAddrs
	// NodeAddrs override the addresses of the Node object.
	NodeAddrs []netip.Addr
	// DetectLocal says where the ranges of pod addresses come from:
	// DetectClusterCIDR or DetectNodeCIDR (kube-proxy's detectLocalMode). With
	// the other two there are no ranges: who comes in by a pod's link is a pod.
	DetectLocal  string
	ClusterCIDRs []netip.Prefix // for DetectClusterCIDR; masked
	// Conntrack is what netfilter's connection tracking is to have at least.
	Conntrack conntrack.Limits
	// EastWest says how connections that begin on this node reach Services.
	EastWest string
	// CgroupRoot is the control group of all sockets; empty: found.
	CgroupRoot      string
	Sizes           maps.Sizes // zero fields: defaults
	LogLevel        slog.Level
	MinSyncInterval time.Duration
	// Warnings are what whoever started the agent should know of the settings
	// themselves, a sentence each.
	Warnings []string
}

// The values of Config.DetectLocal.
const (
	DetectClusterCIDR = "ClusterCIDR"
	DetectNodeCIDR    = "NodeCIDR"
	DetectBridge      = "BridgeInterface"
	DetectPrefix      = "InterfaceNamePrefix"
)

// PodLinks says at which devices packets of pods are translated. The zero value
// means at none.
type PodLinks struct {
	// Demand: only while a Service needs it, at those of Patterns, else at those that
	// look like a pod's link. It does not count where DetectLocal is by device.
	Demand   bool
	Auto     bool     // at those that look like a pod's link
	Patterns []string // as path.Match takes them
	// Bridge and Prefix are for DetectBridge and DetectPrefix.
	Bridge, Prefix string
}

// check reports settings that need another one.
func (c Config) check() error {
	switch {
	case c.DetectLocal == DetectBridge && c.PodLinks.Bridge == "":
		return fmt.Errorf("--detect-local-mode %s needs --pod-bridge-interface", DetectBridge)
	case c.DetectLocal == DetectPrefix && c.PodLinks.Prefix == "":
		return fmt.Errorf("--detect-local-mode %s needs --pod-interface-name-prefix", DetectPrefix)
	}
	return nil
}

// Health is how external balancers are answered.
type Health struct {
	// StateDir is shared with the responder and "ebb drain node".
	StateDir string
	// Responder says who answers probes: a process the agent starts and leaves
	// ("start"), one that somebody else runs ("external"), the agent itself ("off").
	Responder string
	// StaleAfter is how long a responder answers for an agent it does not hear of.
	StaleAfter time.Duration
	// DrainSignals on the Node object drain the node; DrainServices: this fails
	// health check node ports too.
	DrainSignals  []drain.Signal
	DrainServices bool
	// DrainDelay is how long the agent goes on after SIGTERM, with all probes
	// failing; 0: it ends at once and probes are answered as before.
	DrainDelay time.Duration
}

// Source is where Services and EndpointSlices come from. An empty Dir means
// the Kubernetes API.
type Source struct{ Dir string }

// PortRange is first to last, both included.
type PortRange struct{ Min, Max uint16 }

// String formats r as the flag takes it.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.Min, r.Max) }
