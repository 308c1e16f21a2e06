package suite

import (
	"fmt"
	"os"
	"strings"

	"github.com/ebb-lb/ebb/tests/lab"
)

// SNMP returns a counter of the stack of ns, as /proc/net/snmp names it: "Tcp" and
// "InSegs"; of IPv6 without a protocol, as "Udp6InDatagrams". One that is not there is 0.
func SNMP(ns *lab.NS, proto, name string) (n int, err error) {
	file := "/proc/thread-self/net/snmp"
	if proto == "" {
		file += "6"
	}
	var text []byte
	err = ns.Do(func() (err error) {
		text, err = os.ReadFile(file)
		return err
	})
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case proto == "" && len(fields) == 2 && fields[0] == name:
			_, err = fmt.Sscan(fields[1], &n)
		case len(fields) == 0 || fields[0] != proto+":":
		case names == nil:
			names = fields
		default:
			for i, f := range fields {
				if names[i] == name {
					_, err = fmt.Sscan(f, &n)
				}
			}
		}
	}
	return n, err
}
