package lab

import (
	"fmt"
	"os"
)

// setSysctls writes values below /proc/sys for the namespace of the calling thread.
func setSysctls(values [][2]string) error {
	for _, v := range values {
		if err := os.WriteFile("/proc/sys/"+v[0], []byte(v[1]), 0o644); err != nil {
			return fmt.Errorf("set %s to %s: %w", v[0], v[1], err)
		}
	}
	return nil
}

// setQuickIPv6 makes IPv6 addresses usable at once: no duplicate address
// detection, no waiting for router advertisements.
func setQuickIPv6() error {
	return setSysctls([][2]string{
		{"net/ipv6/conf/all/accept_dad", "0"},
		{"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/default/accept_ra", "0"},
		{"net/ipv6/conf/default/router_solicitations", "0"},
	})
}

func setForwarding() error {
	return setSysctls([][2]string{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv6/conf/all/forwarding", "1"},
	})
}
