package config

import (
	"strconv"
	"time"

	"github.com/ebb-lb/ebb/agent/conntrack"
)

const (
	// mostTimeout is more than the kernel's longest default, five days.
	mostTimeout    = 365 * 24 * time.Hour
	allowedTimeout = "a duration from 1s to 8760h, 0 to leave it as it is"
)

// connectionTracking are the settings of netfilter's, by kube-proxy's names.
func connectionTracking() []option {
	limits := func(c *Config) *conntrack.Limits { return &c.Conntrack }
	return []option{
		{name: "conntrack-max-per-core", def: "32768", allowed: "a number, 0 to leave it as it is", usage: "connections netfilter has room for, per core (net.netfilter.nf_conntrack_max); never lowered",
			set: entries(func(c *Config) *uint32 { return &limits(c).MaxPerCore })},
		{name: "conntrack-min", def: "131072", allowed: "a number", usage: "least number of connections netfilter has room for, unless --conntrack-max-per-core is 0",
			set: entries(func(c *Config) *uint32 { return &limits(c).Min })},
		{name: "conntrack-tcp-timeout-established", def: "24h", allowed: allowedTimeout, usage: "how long netfilter remembers idle TCP connections, at least",
			set: timeout(func(c *Config) *time.Duration { return &limits(c).TCPEstablished })},
		{name: "conntrack-tcp-timeout-close-wait", def: "1h", allowed: allowedTimeout, usage: "the same for TCP connections that one side has closed",
			set: timeout(func(c *Config) *time.Duration { return &limits(c).TCPCloseWait })},
		{name: "conntrack-tcp-be-liberal", def: "false", boolean: true, allowed: "true, false", usage: "have netfilter accept TCP packets outside of the window it knows",
			set: one(setLiberal)},
		{name: "conntrack-udp-timeout", def: "0s", allowed: allowedTimeout, usage: "how long netfilter remembers datagrams without an answer, at least",
			set: timeout(func(c *Config) *time.Duration { return &limits(c).UDP })},
		{name: "conntrack-udp-timeout-stream", def: "0s", allowed: allowedTimeout, usage: "the same for datagrams that were answered",
			set: timeout(func(c *Config) *time.Duration { return &limits(c).UDPStream })},
	}
}

// timeout takes a duration of whole seconds.
func timeout(field func(*Config) *time.Duration) func(*Config, []string) error {
	return one(func(c *Config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d != 0 && (d < time.Second || d > mostTimeout) {
			return errNotAllowed
		}
		*field(c) = d
		return nil
	})
}

func setLiberal(c *Config, v string) error {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return errNotAllowed
	}
	c.Conntrack.TCPBeLiberal = on
	return nil
}
