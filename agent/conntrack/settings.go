// Package conntrack raises the limits and timeouts of the node's connection
// tracking, as kube-proxy does: netfilter tracks ebb's connections as those of
// client and pod, and must not forget them earlier than ebb does. It knows the
// kernel's settings and how to give them back, and deliberately nothing of flows.
package conntrack

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/agent/noted"
)

// mostEntries is kube-proxy's bound for nodes with many cores.
const mostEntries = 1 << 20

const (
	settingsDir = "/proc/sys/net/netfilter/"
	bucketsFile = "/sys/module/nf_conntrack/parameters/hashsize"
	maxName     = "nf_conntrack_max"
	bucketsName = "hashsize"
	perBucket   = 4
	onlineCPUs  = "/sys/devices/system/cpu/online"
	beLiberal   = "nf_conntrack_tcp_be_liberal"
	established = "nf_conntrack_tcp_timeout_established"
	closeWait   = "nf_conntrack_tcp_timeout_close_wait"
	udpTimeout  = "nf_conntrack_udp_timeout"
	udpStream   = "nf_conntrack_udp_timeout_stream"
)

// Limits are what is wanted, by kube-proxy's names. Zero leaves a setting as it is.
type Limits struct {
	MaxPerCore, Min uint32
	// TCPEstablished and the others are how long netfilter remembers.
	TCPEstablished, TCPCloseWait time.Duration
	UDP, UDPStream               time.Duration
	TCPBeLiberal                 bool
}

func fileOf(name string) string {
	if name == bucketsName {
		return bucketsFile
	}
	return settingsDir + name
}

// settings returns what a machine with so many cores is to have. The size of the
// hash table follows from the limit.
func (l Limits) settings(cores int) []noted.Setting {
	entries := l.entries(cores)
	all := []noted.Setting{
		setting(maxName, entries),
		setting(bucketsName, entries/perBucket),
		setting(established, seconds(l.TCPEstablished)),
		setting(closeWait, seconds(l.TCPCloseWait)),
		setting(udpTimeout, seconds(l.UDP)),
		setting(udpStream, seconds(l.UDPStream)),
	}
	all[1].Follows = maxName
	if l.TCPBeLiberal {
		all = append(all, setting(beLiberal, 1))
	}
	return all
}

func setting(name string, least int) noted.Setting {
	return noted.Setting{Name: name, File: fileOf(name), Least: least}
}

// entries is kube-proxy's rule for nf_conntrack_max.
func (l Limits) entries(cores int) int {
	if l.MaxPerCore == 0 {
		return 0
	}
	return min(max(int(l.MaxPerCore)*cores, int(l.Min)), mostEntries)
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// cores counts those of the machine: a process may be kept to some of them.
func cores() int {
	text, err := os.ReadFile(onlineCPUs)
	if err == nil {
		if n := countCPUs(string(text)); n > 0 {
			return n
		}
	}
	return runtime.NumCPU()
}

// countCPUs counts a list as the kernel writes it (0-3,6); 0: it is none.
func countCPUs(list string) (n int) {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || low > high {
			return 0
		}
		n += high - low + 1
	}
	return n
}
