package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/sourceports"
)

// portsInterval is how often the kernel's settings are looked at: whoever applies
// sysctl.d anew replaces what the agent has reserved.
const portsInterval = time.Minute

// sourcePorts are those of flows sent to other nodes, kept from the node's sockets.
type sourcePorts struct {
	ports sourceports.Range
	held  sourceports.Reservation
	log   *slog.Logger
	said  string // what was wrong the last time
}

// chooseSourcePorts decides which ports flows get, and changes nothing yet.
func chooseSourcePorts(cfg config.Config, log *slog.Logger) (*sourcePorts, error) {
	held := sourceports.ReservationIn(cfg.Health.StateDir)
	node, err := held.Node()
	if err != nil {
		log.Warn("source ports of the node's sockets are not known", "err", err)
	}
	choice, err := sourceports.Choose(sourceports.Range(cfg.SNATPorts), node)
	if err != nil {
		return nil, err
	}
	for _, w := range choice.Warnings {
		log.Warn("source ports", "warning", w)
	}
	log.Info("source ports chosen", "flows", choice.Ports, "sockets", node.Ephemeral, "reserve", choice.Reserve, "left", choice.Left)
	return &sourcePorts{ports: choice.Ports, held: held, log: log}, nil
}

// reserve makes the kernel keep the ports from sockets. Where that fails, the agent
// does without: only a socket that talks to a backend past ebb can be concerned.
func (s *sourcePorts) reserve() {
	node, err := s.held.Node()
	if err != nil {
		s.problem(err)
		return
	}
	ports, enough := sourceports.Reserve(s.ports, node)
	changed, err := s.held.Make(ports)
	switch {
	case err != nil:
		s.problem(fmt.Errorf("reserve %s: %w: set net.ipv4.ip_local_reserved_ports on the node, or let the agent write /proc/sys/net", ports, err))
		return
	case !enough:
		s.problem(fmt.Errorf("reserving %s would leave too few of net.ipv4.ip_local_port_range %s", s.ports, node.Ephemeral))
		return
	case changed:
		s.log.Info("source ports reserved", "ports", ports, "others", node.Reserved)
	}
	s.said = ""
}

// problem says once what is wrong.
func (s *sourcePorts) problem(err error) {
	if s.said == err.Error() {
		return
	}
	s.said = err.Error()
	s.log.Warn("source ports are shared with sockets: one that connects to a pod, not to a Service, may get the port of a flow to that pod, and its replies go to the flow's client",
		"ports", s.ports, "err", err)
}

// keep goes on reserving until ctx is done.
func (s *sourcePorts) keep(ctx context.Context) error {
	tick := time.NewTicker(portsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.reserve()
		}
	}
}
