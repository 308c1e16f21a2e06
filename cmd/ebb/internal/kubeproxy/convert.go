package kubeproxy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// conversion is a configuration on its way.
type conversion struct {
	mode     string
	server   string // of the kubeconfig beside it
	key      string // that is converted
	settings []Setting
}

func (c *conversion) set(section, name string, value any) error {
	c.settings = append(c.settings, Setting{Section: section, Name: name, Value: value, From: c.key})
	return nil
}

// option sets an option of the agent.
func (c *conversion) option(name string, value any) error { return c.set("config", name, value) }

// text takes a value as it is.
func text(option string) func(*conversion, value) error {
	return func(c *conversion, v value) error { return c.option(option, v.text) }
}

// plain takes a number, or true.
func plain(option string) func(*conversion, value) error {
	return func(c *conversion, v value) error { return c.option(option, json.RawMessage(v.text)) }
}

// address takes HOST:PORT, or a host alone.
func address(section, name, port string) func(*conversion, value) error {
	return func(c *conversion, v value) error {
		if ip, err := netip.ParseAddr(strings.Trim(v.text, "[]")); err == nil {
			return c.set(section, name, net.JoinHostPort(ip.String(), port))
		}
		_, given, err := net.SplitHostPort(v.text)
		if err != nil {
			return fmt.Errorf("%q: must be HOST:PORT or an IP address", v.text)
		}
		if _, err := strconv.ParseUint(given, 10, 16); err != nil {
			return fmt.Errorf("%q: the port must be a number from 0 to 65535", v.text)
		}
		return c.set(section, name, v.text)
	}
}

func modeNames() []string { return []string{"iptables", "ipvs", "nftables"} }

func setMode(_ *conversion, v value) error {
	if !slices.Contains(modeNames(), v.text) {
		return fmt.Errorf("%q: must be iptables, ipvs or nftables", v.text)
	}
	return nil
}

func setClusterCIDR(c *conversion, v value) error {
	return c.cidrs("cluster-cidr", strings.Split(v.text, ","))
}

func setNodePorts(c *conversion, v value) error {
	if slices.Equal(v.list, []string{"primary"}) {
		return c.option("nodeport-addresses", v.list)
	}
	return c.cidrs("nodeport-addresses", v.list)
}

func (c *conversion) cidrs(option string, all []string) error {
	for i, s := range all {
		all[i] = strings.TrimSpace(s)
		if _, err := netip.ParsePrefix(all[i]); err != nil {
			return fmt.Errorf("%q: must be CIDRs", s)
		}
	}
	return c.option(option, all)
}

// setServer takes the server of the kubeconfig that is in the ConfigMap; the path is
// that of a file in kube-proxy's container.
func setServer(c *conversion, v value) error {
	if c.server == "" {
		return nil
	}
	u, err := url.Parse(c.server)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("kubeconfig.conf: server %q: must be https://HOST:PORT", c.server)
	}
	c.key = "kubeconfig.conf of the ConfigMap"
	return c.set("kubeApi", "servers", []string{c.server})
}

// longestSync is the most that --min-sync-interval takes.
const longestSync = time.Minute

func setMinSync(c *conversion, v value) error {
	if !strings.HasPrefix(c.key, c.mode+".") {
		return nil
	}
	d, err := time.ParseDuration(v.text)
	if err != nil {
		return err
	}
	if d > longestSync {
		d, c.key = longestSync, fmt.Sprintf("%s is %s, the longest is %s", c.key, v.text, longestSync)
	}
	return c.option("min-sync-interval", d.String())
}

// debugVerbosity is that of kube-proxy's messages about single changes.
const debugVerbosity = 4

func setLogLevel(c *conversion, v value) error {
	n, err := strconv.Atoi(v.text)
	if err != nil || n < 0 {
		return fmt.Errorf("%s: must be a number from 0", v.text)
	}
	if n < debugVerbosity {
		return nil
	}
	return c.option("log-level", "debug")
}

func always(*conversion, value) bool { return true }

func isJSON(_ *conversion, v value) bool { return v.text == "json" }

// inMode is for values that count in some modes only.
func inMode(modes ...string) func(*conversion, value) bool {
	return func(c *conversion, _ value) bool { return slices.Contains(modes, c.mode) }
}

func otherThanRoundRobin(c *conversion, v value) bool { return c.mode == "ipvs" && v.text != "rr" }
