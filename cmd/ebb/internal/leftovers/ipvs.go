package leftovers

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	ipvsTable  = "/proc/net/ip_vs"
	ipvsDevice = "kube-ipvs0"
)

// Server is an IPVS virtual server.
type Server struct {
	Protocol string         `json:"protocol"` // "TCP", "UDP", "SCTP"
	Addr     netip.AddrPort `json:"addr"`
	// Active are its connections: they end with it.
	Active int `json:"active,omitempty"`
}

// String formats s as ebb does frontends.
func (s Server) String() string { return s.Addr.String() + "/" + s.Protocol }

// option is how ipvsadm names s.
func (s Server) option() string {
	return map[string]string{"TCP": "-t ", "UDP": "-u ", "SCTP": "--sctp-service "}[s.Protocol] + s.Addr.String()
}

// parseServers takes /proc/net/ip_vs. Servers by firewall mark are left out: kube-proxy
// makes none.
func parseServers(text string) ([]Server, error) {
	var all []Server
	var server *Server // that the next lines are about
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		var err error
		switch {
		case len(f) < 2:
		case f[0] == "->":
			err = server.addActive(f)
		case slices.Contains([]string{"TCP", "UDP", "SCTP"}, f[0]):
			var addr netip.AddrPort
			addr, err = parseServer(f[1])
			all = append(all, Server{Protocol: f[0], Addr: addr})
			server = &all[len(all)-1]
		default:
			server = nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", ipvsTable, strings.TrimSpace(line), err)
		}
	}
	return all, nil
}

// addActive takes the line of a backend: address, method, weight, active and other
// connections.
func (s *Server) addActive(f []string) error {
	if s == nil || len(f) < 6 {
		return nil
	}
	n, err := strconv.Atoi(f[4])
	s.Active += n
	return err
}

// parseServer takes AABBCCDD:PPPP or [IPv6]:PPPP, of which all but an IPv6 address is
// hexadecimal.
func parseServer(text string) (netip.AddrPort, error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return netip.AddrPort{}, errors.New("no port")
	}
	port, err := strconv.ParseUint(text[i+1:], 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	host := text[:i]
	if six, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(six, "]"))
		return netip.AddrPortFrom(addr, uint16(port)), err
	}
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, errors.New("no address")
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// lookIPVS adds what the IPVS mode has left, but for virtual servers at addresses in
// spared (kube-proxy's ipvs.excludeCIDRs). Without kube-proxy's device, virtual servers
// are somebody else's.
func lookIPVS(ctx context.Context, m Machine, spared []netip.Prefix, found *Found) error {
	devices, err := m.Read("/proc/net/dev")
	if err != nil {
		return err
	}
	found.IPVS.Device = hasDevice(devices, ipvsDevice)
	if found.IPVS.Sets, err = sets(ctx, m); err != nil || !found.IPVS.Device {
		return err
	}
	if !m.Has("ipset") {
		found.Unknown = append(found.Unknown, "sets of the IPVS mode are not known: ipset is not in PATH; install the package ipset")
	}
	text, err := m.Read(ipvsTable)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	servers, err := parseServers(text)
	found.IPVS.Servers = slices.DeleteFunc(servers, func(s Server) bool {
		return slices.ContainsFunc(spared, func(p netip.Prefix) bool { return p.Contains(s.Addr.Addr()) })
	})
	return err
}

// hasDevice looks into /proc/net/dev.
func hasDevice(text, device string) bool {
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == device {
			return true
		}
	}
	return false
}

// sets returns kube-proxy's IP sets.
func sets(ctx context.Context, m Machine) ([]string, error) {
	if !m.Has("ipset") {
		return nil, nil
	}
	out, err := m.Run(ctx, "", "ipset", "list", "-n")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Fields(out), func(name string) bool { return !ownedSet(name) }), nil
}

// ownedSet reports whether an IP set is one of the IPVS mode's.
func ownedSet(name string) bool {
	base := strings.TrimPrefix(strings.TrimPrefix(name, "KUBE-6-"), "KUBE-")
	return base != name && slices.Contains([]string{
		"CLUSTER-IP", "LOOP-BACK", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL", "LOAD-BALANCER", "LOAD-BALANCER-FW", "LOAD-BALANCER-LOCAL",
		"LOAD-BALANCER-SOURCE-CIDR", "LOAD-BALANCER-SOURCE-IP", "NODE-PORT-TCP", "NODE-PORT-UDP", "NODE-PORT-SCTP-HASH",
		"NODE-PORT-LOCAL-TCP", "NODE-PORT-LOCAL-UDP", "NODE-PORT-LOCAL-SCTP-HASH", "HEALTH-CHECK-NODE-PORT", "IPVS-IPS",
	}, base)
}
