package demo

import (
	"net/netip"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/tests/lab/load"
)

// Result is what a demo has counted. Its JSON form is stable.
type Result struct {
	Acts     []Act     `json:"acts"`
	Backends []Backend `json:"backends"`
	// Packets are those of the agents' datapath, after the load.
	Packets Packets `json:"packets"`
	// Failures are the first ones, in order.
	Failures []load.Failure `json:"failures,omitempty"`
	// Failed is how many operations failed in all acts.
	Failed int `json:"failed"`
}

// Act is the load that began in one act. Latencies are those of new TCP
// connections, from the first SYN to the last byte.
type Act struct {
	Name      string `json:"name"`
	Requests  int    `json:"requests"`
	Failed    int    `json:"failed"`
	P50Micros int64  `json:"p50Micros"`
	P99Micros int64  `json:"p99Micros"`

	TCP       load.KindReport `json:"tcp"`
	Transfers load.KindReport `json:"transfers"`
	UDP       load.KindReport `json:"udp"`

	PodsReplaced    int   `json:"podsReplaced,omitempty"`
	AgentDownMillis int64 `json:"agentDownMillis,omitempty"`
}

// Backend is what one pod has answered.
type Backend struct {
	Pod         string       `json:"pod"`
	Node        string       `json:"node"`
	Addresses   []netip.Addr `json:"addresses"`
	Connections int          `json:"connections"`
	Transfers   int          `json:"transfers"`
	Datagrams   int          `json:"datagrams"`
}

// Packets are counters by node, hook and verdict, without those that are zero.
type Packets map[string]map[string]map[string]uint64

func (p Packets) add(node string, counters map[maps.Hook]map[maps.Verdict]uint64) {
	p[node] = map[string]map[string]uint64{}
	for hook, verdicts := range counters {
		named := map[string]uint64{}
		for v, n := range verdicts {
			if n > 0 {
				named[v.String()] = n
			}
		}
		p[node][hook.String()] = named
	}
}

// translated adds up the packets that a hook of a node has rewritten.
func (p Packets) translated(node, hook string) uint64 {
	var sum uint64
	for _, v := range []maps.Verdict{
		maps.VerdictToLocal, maps.VerdictToRemote, maps.VerdictReplyLocal, maps.VerdictReplyRemote,
	} {
		sum += p[node][hook][v.String()]
	}
	return sum
}

// newResult puts the reports of the clients together. Their acts follow each other.
func newResult(reports []load.Report, records []actRecord, cast []*member) Result {
	var res Result
	var acts []load.ActReport
	answered := map[string]load.PodReport{}
	for _, r := range reports {
		acts = append(acts, r.Acts...)
		res.Failures = append(res.Failures, r.Failures...)
		for _, p := range r.Pods {
			sum := answered[p.Pod]
			sum.Connections += p.Connections
			sum.Transfers += p.Transfers
			sum.Datagrams += p.Datagrams
			answered[p.Pod] = sum
		}
	}
	for i, a := range acts {
		requests, failed := a.Totals()
		act := Act{
			Name: a.Name, Requests: requests, Failed: failed,
			P50Micros: a.Kinds[load.TCP].P50Micros, P99Micros: a.Kinds[load.TCP].P99Micros,
			TCP: a.Kinds[load.TCP], Transfers: a.Kinds[load.Transfer], UDP: a.Kinds[load.UDP],
		}
		if i < len(records) {
			act.PodsReplaced = records[i].podsReplaced
			act.AgentDownMillis = records[i].agentDown.Milliseconds()
		}
		res.Acts = append(res.Acts, act)
		res.Failed += failed
	}
	for _, m := range cast {
		p := answered[m.pod.Name()]
		res.Backends = append(res.Backends, Backend{
			Pod: m.pod.Name(), Node: m.pod.Node.Name(), Addresses: []netip.Addr{m.pod.Addr4, m.pod.Addr6},
			Connections: p.Connections, Transfers: p.Transfers, Datagrams: p.Datagrams,
		})
	}
	return res
}
