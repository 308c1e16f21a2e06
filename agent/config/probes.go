package config

import (
	"time"

	"github.com/ebb-lb/ebb/agent/drain"
)

// DefaultStateDir is where agent, responder and "ebb drain node" meet.
const DefaultStateDir = "/run/ebb"

// defaultDrainSignals are the signs of those who remove nodes, and one to set by
// hand or by whatever else does.
const defaultDrainSignals = "taint:ToBeDeletedByClusterAutoscaler,taint:karpenter.sh/disrupted,annotation:ebb-lb.dev/drain"

// probes are the settings of what external balancers see.
func probes() []option {
	return []option{
		{name: "health-addr", def: ":10256", allowed: allowedAddr, usage: "where /healthz and /livez are served",
			set: address(func(c *Config) *string { return &c.HealthAddr })},
		{name: "state-dir", def: DefaultStateDir, allowed: "a directory", usage: "directory of the responder and of the order of \"ebb drain node\"", set: one(setStateDir)},
		{name: "health-responder", def: "start", off: true, allowed: "start, external, off",
			usage: "who answers probes: a process that outlives the agent, one that is run separately, the agent itself",
			set:   choice(func(c *Config) *string { return &c.Health.Responder }, "start", "external", "off")},
		{name: "health-stale-after", def: "60s", allowed: "a duration from 1s to 1h", usage: "how long probes are answered as before while there is no agent",
			set: duration(func(c *Config) *time.Duration { return &c.Health.StaleAfter }, time.Second, time.Hour)},
		{name: "drain-signal", list: true, def: defaultDrainSignals, allowed: "taint:, label: or annotation:KEY, or KEY=VALUE",
			usage: "what on the Node object drains the node", set: each(func(c *Config) *[]drain.Signal { return &c.Health.DrainSignals }, drain.ParseSignal)},
		{name: "drain-scope", def: "node", allowed: "node, all", usage: "what a drained node fails: /healthz, or health check node ports too", set: one(setDrainScope)},
		{name: "drain-delay", def: "0s", allowed: "a duration from 0 to 1h", usage: "how long to go on after SIGTERM, with probes failing",
			set: duration(func(c *Config) *time.Duration { return &c.Health.DrainDelay }, 0, time.Hour)},
	}
}

func setStateDir(c *Config, v string) error {
	if v == "" {
		return errNotAllowed
	}
	c.Health.StateDir = v
	return nil
}

func setDrainScope(c *Config, v string) error {
	if v != "node" && v != "all" {
		return errNotAllowed
	}
	c.Health.DrainServices = v == "all"
	return nil
}
