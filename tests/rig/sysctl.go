package rig

import (
	"fmt"
	"os"
)

// setSysctls makes the namespace of the calling thread forward. /proc/sys/net
// follows the namespace of the thread that opens a file there.
func setSysctls() error {
	for _, path := range []string{
		"/proc/sys/net/ipv4/ip_forward",
		"/proc/sys/net/ipv6/conf/all/forwarding",
	} {
		if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("switch on forwarding: %w", err)
		}
	}
	return nil
}
