package config

import "strconv"

// Answers is what the node itself says to clients.
type Answers struct {
	// RejectReset answers refused TCP with a RST; else with an ICMP error.
	RejectReset bool
	// RejectRate is how many packets a second each CPU answers at most.
	RejectRate uint32
	// VIPEcho answers pings of load balancer addresses and external IPs.
	VIPEcho bool
}

// The values of Config.OnBackendGone.
const (
	KeepGone  = "keep"
	ResetGone = "reset"
)

// maxRejectRate leaves a microsecond for an answer.
const maxRejectRate = 1_000_000

// answers are the settings of Answers, and of what becomes of connections
// nobody can serve any more.
func answers() []option {
	return []option{
		{name: "reject-tcp", def: "icmp", allowed: "icmp, reset", usage: "how TCP is refused: by an ICMP error, or by a RST", set: one(setRejectTCP)},
		{name: "reject-rate", def: "1000", allowed: "a number from 0 to 1000000", usage: "answers a second and CPU, ICMP errors and RSTs; beyond it packets are dropped silently", set: one(setRejectRate)},
		{name: "vip-echo", def: "off", off: true, allowed: "on, off", usage: "answer pings of load balancer addresses and external IPs", set: one(setVIPEcho)},
		{name: "on-backend-gone", def: KeepGone, allowed: "keep, reset", usage: "established TCP whose endpoint has left its slices: sent there on, or reset",
			set: choice(func(c *Config) *string { return &c.OnBackendGone }, KeepGone, ResetGone)},
	}
}

func setRejectTCP(c *Config, v string) error {
	if v != "icmp" && v != "reset" {
		return errNotAllowed
	}
	c.Answers.RejectReset = v == "reset"
	return nil
}

func setRejectRate(c *Config, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n > maxRejectRate {
		return errNotAllowed
	}
	c.Answers.RejectRate = uint32(n)
	return nil
}

// setVIPEcho takes "true" too: that is what YAML makes of "on".
func setVIPEcho(c *Config, v string) error {
	if v != "on" && v != "true" && v != "off" {
		return errNotAllowed
	}
	c.Answers.VIPEcho = v != "off"
	return nil
}
