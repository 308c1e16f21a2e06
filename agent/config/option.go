package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/agent/service"
)

// option is one setting, whatever it is set by.
type option struct {
	name, usage string
	def         string
	list        bool // may be given several times
	boolean     bool // the flag alone stands for "true"
	off         bool // "off" is allowed, which YAML 1.1 reads as false
	allowed     string
	set         func(c *Config, values []string) error
}

// one adapts a setter of a single value.
func one(set func(c *Config, v string) error) func(*Config, []string) error {
	return func(c *Config, values []string) error { return set(c, values[len(values)-1]) }
}

func text(field func(*Config) *string) func(*Config, []string) error {
	return one(func(c *Config, v string) error { *field(c) = v; return nil })
}

func choice(field func(*Config) *string, allowed ...string) func(*Config, []string) error {
	return one(func(c *Config, v string) error {
		for _, a := range allowed {
			if v == a {
				*field(c) = v
				return nil
			}
		}
		return errNotAllowed
	})
}

var errNotAllowed = errors.New("not allowed")

func address(field func(*Config) *string) func(*Config, []string) error {
	return one(func(c *Config, v string) error {
		*field(c) = v
		if v == "" {
			return nil
		}
		_, port, err := net.SplitHostPort(v)
		if err != nil {
			return errNotAllowed
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return errNotAllowed
		}
		return nil
	})
}

func entries(field func(*Config) *uint32) func(*Config, []string) error {
	return one(func(c *Config, v string) error {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return errNotAllowed
		}
		*field(c) = uint32(n)
		return nil
	})
}

func duration(field func(*Config) *time.Duration, least, most time.Duration) func(*Config, []string) error {
	return one(func(c *Config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return errNotAllowed
		}
		*field(c) = d
		return nil
	})
}

func each[T any](field func(*Config) *[]T, parse func(string) (T, error)) func(*Config, []string) error {
	return func(c *Config, values []string) error {
		out := make([]T, 0, len(values))
		for _, v := range values {
			x, err := parse(v)
			if err != nil {
				return fmt.Errorf("%q: %w", v, errNotAllowed)
			}
			out = append(out, x)
		}
		*field(c) = out
		return nil
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return strings.ToLower(name)
}

const (
	allowedAddr    = "HOST:PORT, or empty for none"
	allowedEntries = "a number of entries, 0 for the default"
)

// options are all settings there are.
func options() []option {
	return slices.Concat(general(), answers(), pods(), sockets(), connectionTracking(), probes(), sizes())
}

func general() []option {
	return []option{
		{name: "source", def: "kubernetes", allowed: "kubernetes, dir:PATH", usage: "where Services and EndpointSlices come from", set: one(setSource)},
		{name: "kubeconfig", usage: "kubeconfig file; empty: in-cluster", set: text(func(c *Config) *string { return &c.Kubeconfig })},
		{name: "kube-api", list: true, allowed: "URLs, or absolute paths of kubeconfig files",
			usage: "where the API server is, tried in turn; of a kubeconfig only the server counts; none: where --kubeconfig says, or the environment of the pod, which is a Service",
			set:   each(func(c *Config) *[]string { return &c.KubeAPI }, parseServer)},
		{name: "node-name", def: hostname(), allowed: "a node's name", usage: "name of this node's Node object", set: one(setNodeName)},
		{name: "service-proxy-name", allowed: "a label value, or empty for Services without the label",
			usage: "balance Services with this value of the label service.kubernetes.io/service-proxy-name", set: one(setProxyName)},
		{name: "uplink", list: true, usage: "device by which clients come in; none: all that lead to other machines, not to pods",
			set: each(func(c *Config) *[]string { return &c.Uplinks }, deviceName), allowed: "device names"},
		{name: "xdp", def: "auto", off: true, allowed: "auto, native, generic, off", usage: "XDP on uplinks",
			set: choice(func(c *Config) *string { return &c.XDP }, "auto", "native", "generic", "off")},
		{name: "bpffs", def: "/sys/fs/bpf/ebb", usage: "directory for pins", set: text(func(c *Config) *string { return &c.BPFFS })},
		{name: "metrics-addr", def: "127.0.0.1:10249", allowed: allowedAddr, usage: "where /metrics and /proxyMode are served", set: address(func(c *Config) *string { return &c.MetricsAddr })},
		{name: "snat-ports", def: "auto", allowed: "auto, or MIN-MAX within 1-65535", set: one(setSNAT),
			usage: "source ports of flows sent to other nodes; auto: 1024-29999, unless that leaves the node's sockets too few"},
		{name: "unknown-flow", def: "reset", allowed: "reset, drop, pass, peer",
			usage: "packets in the middle of TCP and SCTP connections that belong to no flow: answered with a RST or ABORT, dropped, or left to the host; peer: TCP is sent to the node its backend is on, which must run ebb too, as with ECMP",
			set:   choice(func(c *Config) *string { return &c.UnknownFlow }, "reset", "drop", "pass", "peer")},
		{name: "nodeport-addresses", def: "primary", list: true, allowed: "primary, all, or CIDRs",
			usage: "addresses of the node that accept node ports; primary: the first of each family", set: setNodePorts},
		{name: "node-addresses", list: true, allowed: "IP addresses", usage: "addresses of this node, instead of those of the Node object",
			set: each(func(c *Config) *[]netip.Addr { return &c.NodeAddrs }, parseAddr)},
		{name: "log-level", def: "info", allowed: "debug, info, warn, error", usage: "least severe messages that are logged", set: one(setLevel)},
		{name: "min-sync-interval", def: "50ms", allowed: "a duration from 0 to 1m", usage: "how long a burst of changes is gathered",
			set: duration(func(c *Config) *time.Duration { return &c.MinSyncInterval }, 0, time.Minute)},
	}
}

// pods are about who is a pod and how it comes in.
func pods() []option {
	return []option{
		{name: "pod-link", def: "demand", list: true, off: true, allowed: "demand, auto, off, or patterns of device names", set: setPodLinks,
			usage: "node's end of a pod's device, where its packets to services are translated; auto: veths into other network namespaces; " +
				"demand: these, or the patterns beside it, while a Service needs it: one with source ranges that some pods are in, in packet mode, or of SCTP"},
		{name: "detect-local-mode", def: DetectClusterCIDR, allowed: "ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix",
			usage: "how pods of this node are known: by addresses of --cluster-cidr, or of the Node object's podCIDRs, or by the device they come in by: " +
				"ports of --pod-bridge-interface, or those of --pod-interface-name-prefix, are the pods' links unless --pod-link names others",
			set: choice(func(c *Config) *string { return &c.DetectLocal }, DetectClusterCIDR, DetectNodeCIDR, DetectBridge, DetectPrefix)},
		{name: "cluster-cidr", list: true, allowed: "CIDRs", usage: "ranges of pod addresses, compared with source ranges of load balancers; none: they are not known",
			set: each(func(c *Config) *[]netip.Prefix { return &c.ClusterCIDRs }, parsePrefix)},
		{name: "pod-bridge-interface", allowed: "a device name", usage: "bridge of the pods, for --detect-local-mode=BridgeInterface",
			set: optionalDevice(func(c *Config) *string { return &c.PodLinks.Bridge })},
		{name: "pod-interface-name-prefix", allowed: "the beginning of device names", usage: "of the pods' devices, for --detect-local-mode=InterfaceNamePrefix",
			set: optionalDevice(func(c *Config) *string { return &c.PodLinks.Prefix })},
	}
}

func sizes() []option {
	return []option{
		{name: "max-flows", def: "0", allowed: allowedEntries, usage: "entries for flows, two per connection", set: entries(func(c *Config) *uint32 { return &c.Sizes.Flows })},
		{name: "max-half-open", def: "0", allowed: allowedEntries, usage: "entries for handshakes, and for datagrams that begin", set: entries(func(c *Config) *uint32 { return &c.Sizes.HalfOpen })},
		{name: "max-closed", def: "0", allowed: allowedEntries, usage: "entries for closed connections, whose last packets may still come", set: entries(func(c *Config) *uint32 { return &c.Sizes.Closed })},
		{name: "max-affinity", def: "0", allowed: allowedEntries, usage: "clients that keep a backend, per service port", set: entries(func(c *Config) *uint32 { return &c.Sizes.Affinity })},
		{name: "max-source-ranges", def: "0", allowed: allowedEntries, usage: "source ranges of load balancers, per service port", set: entries(func(c *Config) *uint32 { return &c.Sizes.SourceRanges })},
		{name: "max-backends", def: "0", allowed: allowedEntries, usage: "backends", set: entries(func(c *Config) *uint32 { return &c.Sizes.Backends })},
		{name: "max-frontends", def: "0", allowed: allowedEntries, usage: "frontends, and service ports", set: one(setFrontends)},
		{name: "max-slots", def: "0", allowed: allowedEntries, usage: "slots of all lookup tables", set: entries(func(c *Config) *uint32 { return &c.Sizes.Slots })},
	}
}

func setSource(c *Config, v string) error {
	if dir, ok := strings.CutPrefix(v, "dir:"); ok && dir != "" {
		c.Source = Source{Dir: dir}
		return nil
	}
	if v != "kubernetes" {
		return errNotAllowed
	}
	c.Source = Source{}
	return nil
}

// parseServer takes what says where an API server is.
func parseServer(v string) (string, error) {
	if filepath.IsAbs(v) {
		return v, nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", errNotAllowed
	}
	return v, nil
}

func setNodeName(c *Config, v string) error {
	if v == "" {
		return errNotAllowed
	}
	c.NodeName = v
	return nil
}

// labelValue is what Kubernetes allows as one.
var labelValue = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)

func setProxyName(c *Config, v string) error {
	if !labelValue.MatchString(v) {
		return errNotAllowed
	}
	c.ServiceProxyName = v
	return nil
}

func deviceName(v string) (string, error) {
	if v == "" || len(v) > 15 || strings.ContainsAny(v, "/ \t") {
		return "", errNotAllowed
	}
	return v, nil
}

func optionalDevice(field func(*Config) *string) func(*Config, []string) error {
	return one(func(c *Config, v string) (err error) {
		if v != "" {
			v, err = deviceName(v)
		}
		*field(c) = v
		return err
	})
}

// setPodLinks takes patterns, of which the words are none.
func setPodLinks(c *Config, values []string) error {
	l := &c.PodLinks
	l.Demand, l.Auto, l.Patterns = false, false, nil
	off := false
	for _, v := range values {
		if _, err := path.Match(v, ""); err != nil {
			return fmt.Errorf("%q: %w", v, errNotAllowed)
		}
		switch v {
		case "":
		case "off":
			off = true
		case "demand":
			l.Demand = true
		case "auto":
			l.Auto = true
		default:
			l.Patterns = append(l.Patterns, v)
		}
	}
	if off && len(values) > 1 || l.Demand && l.Auto {
		return errNotAllowed
	}
	return nil
}

func parseAddr(v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(v)
	return a.Unmap(), err
}

func parsePrefix(v string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v)
	if p = service.UnmapPrefix(p); err == nil && !p.IsValid() {
		return p, errNotAllowed
	}
	return p, err
}

// setNodePorts takes one of the words, or ranges.
func setNodePorts(c *Config, values []string) error {
	c.NodePorts = service.NodePortAddrs{}
	if len(values) == 1 && (values[0] == "primary" || values[0] == "all") {
		c.NodePorts.All = values[0] == "all"
		return nil
	}
	if len(values) == 0 {
		return errNotAllowed
	}
	return each(func(c *Config) *[]netip.Prefix { return &c.NodePorts.CIDRs }, parsePrefix)(c, values)
}

func setSNAT(c *Config, v string) error {
	if v == "auto" {
		c.SNATPorts = PortRange{}
		return nil
	}
	lo, hi, _ := strings.Cut(v, "-")
	first, err1 := strconv.ParseUint(lo, 10, 16)
	last, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || first > last {
		return errNotAllowed
	}
	c.SNATPorts = PortRange{uint16(first), uint16(last)}
	return nil
}

func setLevel(c *Config, v string) error {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(v, l.String()) {
			c.LogLevel = l
			return nil
		}
	}
	return errNotAllowed
}

func setFrontends(c *Config, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return errNotAllowed
	}
	c.Sizes.Frontends, c.Sizes.ServicePorts = uint32(n), uint32(n)
	return nil
}
