package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/ebb-lb/ebb/cmd/ebb/internal/holders"
	"github.com/ebb-lb/ebb/cmd/ebb/internal/leftovers"
	"github.com/ebb-lb/ebb/loader"
)

// Ports that kube-proxy has by default, and ebb too.
const (
	proxyMetricsPort = 10249
	proxyHealthPort  = 10256
)

const kubeProxyName = "kube-proxy"

// migrateNode is who serves Services on a node, and who answers probes.
type migrateNode struct {
	KubeProxy []holders.Process `json:"kubeProxyProcesses,omitempty"`
	Ports     []migratePort     `json:"ports"`
	Ebb       migrateEbb        `json:"ebb"`
}

// migratePort is a port that changes hands, or may.
type migratePort struct {
	Port uint16 `json:"port"`
	Use  string `json:"use"`
	// Free: nobody listens. Else Addr and Owner say who does; an Owner without a PID
	// cannot be seen from here.
	Free  bool            `json:"free,omitempty"`
	Addr  string          `json:"addr,omitempty"`
	Owner holders.Process `json:"owner,omitzero"`
}

// migrateEbb is what there is of ebb.
type migrateEbb struct {
	Serves       bool              `json:"serves"` // programs are attached, and all Services were once in the maps
	Links        int               `json:"links"`
	LastComplete time.Time         `json:"lastCompleteSync,omitzero"`
	Processes    []holders.Process `json:"processes,omitempty"`
}

func lookAtNode(bpffs string) (migrateNode, error) {
	all, err := holders.Processes()
	if err != nil {
		return migrateNode{}, err
	}
	listeners, err := holders.Listeners(all)
	if err != nil {
		return migrateNode{}, err
	}
	ebb, err := lookForEbb(bpffs)
	ebb.Processes = holders.Named(all, "ebb")
	ebb.Serves = !ebb.LastComplete.IsZero() && ebb.Links > 0
	return migrateNode{KubeProxy: holders.Named(all, kubeProxyName), Ports: portsOf(listeners), Ebb: ebb}, err
}

func lookForEbb(bpffs string) (migrateEbb, error) {
	var ebb migrateEbb
	links, err := os.ReadDir(loader.LinksDir(bpffs))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ebb, err
	}
	ebb.Links = len(links)
	ebb.LastComplete, err = loader.LastComplete(bpffs)
	return ebb, err
}

// portsOf returns what matters of all listeners: the two well-known ports, and whatever
// else a service proxy has.
func portsOf(listeners []holders.Listener) []migratePort {
	ports := wellKnown(listeners, proxyMetricsPort, "metrics")
	ports = append(ports, wellKnown(listeners, proxyHealthPort, "healthz")...)
	for _, l := range listeners {
		port := l.Addr.Port()
		if port != proxyMetricsPort && port != proxyHealthPort && slices.Contains([]string{kubeProxyName, "ebb"}, l.Owner.Name) {
			ports = append(ports, migratePort{Port: port, Use: "health check node port", Addr: l.Addr.String(), Owner: l.Owner})
		}
	}
	return ports
}

func wellKnown(listeners []holders.Listener, port uint16, use string) []migratePort {
	var ports []migratePort
	for _, l := range listeners {
		if l.Addr.Port() == port {
			ports = append(ports, migratePort{Port: port, Use: use, Addr: l.Addr.String(), Owner: l.Owner})
		}
	}
	if ports == nil {
		ports = []migratePort{{Port: port, Use: use, Free: true}}
	}
	return ports
}

func (p migratePort) String() string {
	if p.Free {
		return fmt.Sprintf("%d (%s): free", p.Port, p.Use)
	}
	return fmt.Sprintf("%d (%s): %s, at %s", p.Port, p.Use, processText(p.Owner), p.Addr)
}

func processText(p holders.Process) string {
	if !p.Known() {
		return "a process that cannot be seen from here"
	}
	return fmt.Sprintf("%s, pid %d", p.Name, p.PID)
}

func (e migrateEbb) String() string {
	switch {
	case e.Serves:
		return fmt.Sprintf("serves: %d links, all Services known at %s", e.Links, e.LastComplete.Format(time.RFC3339))
	case e.Links > 0:
		return fmt.Sprintf("does not serve yet: %d links, but not all Services were known yet", e.Links)
	}
	return "does not serve: no programs are attached"
}

// refusals are the reasons not to remove kube-proxy's rules now, a sentence each.
func (n migrateNode) refusals(found leftovers.Found) []string {
	var all []string
	for _, p := range n.KubeProxy {
		all = append(all, fmt.Sprintf("%s still runs and would write its rules again; stop it first", processText(p)))
	}
	if len(n.KubeProxy) == 0 {
		for _, p := range n.Ports {
			if p.Port == proxyHealthPort && !p.Free && p.Owner.Name != "ebb" {
				all = append(all, fmt.Sprintf("port %d, kube-proxy's and ebb's, is that of %s: kube-proxy may be part of it; stop it, and run this on the node, not in a container", p.Port, processText(p.Owner)))
			}
		}
	}
	if !n.Ebb.Serves {
		all = append(all, "ebb "+n.Ebb.String()+"; without kube-proxy's rules nobody would serve Services on this node")
	}
	if n := found.IPVS.Active(); n > 0 {
		all = append(all, fmt.Sprintf("%d connections go by IPVS, and end with its virtual servers; wait for these to end", n))
	}
	for _, family := range found.NoOtherNAT {
		all = append(all, fmt.Sprintf("nothing but kube-proxy's rules has netfilter translate connections of the family %[1]s: those that it translates now end with the rules; "+
			"wait for them to end, or first give netfilter a reason to go on: "+
			"nft 'add table %[1]s stay; add chain %[1]s stay nat { type nat hook postrouting priority 100; }; add rule %[1]s stay nat ct state new accept'", family))
	}
	return all
}
