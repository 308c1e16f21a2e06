package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/loader"
)

// identity says if the Node object the agent goes by is not that of this machine.
// Policies, node ports and health are wrong then; what else can be served is.
type identity struct {
	cfg    config.Config
	health *health.State
	log    *slog.Logger
}

// look compares what the source says of the node with the machine.
func (i *identity) look(n reconcile.NodeNet) {
	if !n.Known {
		return
	}
	own, err := loader.OwnAddresses()
	if err != nil {
		i.log.Warn("addresses of the machine are not known", "err", err)
		return
	}
	problem := identityProblem(i.cfg, n, own)
	if !i.health.Warn("node", problem) {
		return
	}
	if problem == "" {
		i.log.Info("the node is this machine", "node", i.cfg.NodeName, "addresses", n.Addrs)
		return
	}
	i.log.Warn("the node is not this machine: policies, node ports and health may be those of another", "node", i.cfg.NodeName, "problem", problem)
}

// identityProblem returns what is wrong; empty: nothing.
func identityProblem(cfg config.Config, n reconcile.NodeNet, own map[netip.Addr]bool) string {
	chosen := len(cfg.NodeAddrs) > 0
	switch {
	case !n.Object && !chosen:
		return fmt.Sprintf("there is no Node object %q: --node-name must be the name of this machine's", cfg.NodeName)
	case len(n.Addrs) == 0:
		return fmt.Sprintf("Node object %q has no addresses", cfg.NodeName)
	case slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool { return own[a] }):
		return ""
	case chosen:
		return fmt.Sprintf("none of --node-addresses %s is on this machine", addressList(n.Addrs))
	}
	return fmt.Sprintf("none of the addresses of Node object %q (%s) is on this machine: --node-name may be the name of another", cfg.NodeName, addressList(n.Addrs))
}

func addressList(addrs []netip.Addr) string {
	all := make([]string, 0, len(addrs))
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}
