package leftovers

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// remains says what of netfilter goes on for a family without kube-proxy's rules.
// Connections that these have translated need both: somebody who has a chain for NAT,
// and somebody whose rules need connections tracked. The kernel ends either with the
// last one that wants it.
type remains struct{ translates, tracks bool }

func (r remains) or(s remains) remains {
	return remains{r.translates || s.translates, r.tracks || s.tracks}
}

// tracking is what rules say that need connections tracked, in the words of nft and of
// iptables.
var tracking = regexp.MustCompile(`(?i)(^|[ "-])(ct|conntrack|state|masquerade|snat|dnat|redirect|netmap)([ "]|$)`)

// quoted are names and comments.
var quoted = regexp.MustCompile(`"[^"]*"`)

// remains looks at what iptables has.
func (s saved) remains() remains {
	r := remains{translates: s.name == "nat"}
	for _, rule := range s.rules {
		gone := owned(s.name, rule.chain) || owned(s.name, rule.target)
		r.tracks = r.tracks || !gone && tracking.MatchString(quoted.ReplaceAllString(rule.spec, ""))
	}
	return r
}

// remains asks nft about all tables but kube-proxy's that a family has.
func (n nft) remains(ctx context.Context, m Machine, family string) (remains, error) {
	r := remains{translates: n.translates(family)}
	for _, t := range n.others {
		if r.tracks || t.Family != family && t.Family != "inet" {
			continue
		}
		out, err := m.Run(ctx, "", "nft", "list", "table", t.Family, t.Name)
		if err != nil {
			return r, err
		}
		r.tracks = tracks(t.Name, out)
	}
	return r, nil
}

var (
	chainLine = regexp.MustCompile(`^\tchain (\S+) \{`)
	jumpLine  = regexp.MustCompile(`\b(?:jump|goto) (\S+)`)
)

// tracks reports whether a rule of a table needs connections tracked, but for those that
// iptables has put there for kube-proxy.
func tracks(table, text string) bool {
	var in string // the chain
	for line := range strings.Lines(text) {
		line = quoted.ReplaceAllString(strings.TrimSuffix(line, "\n"), "")
		if c := chainLine.FindStringSubmatch(line); c != nil {
			in = c[1]
			continue
		}
		jump := jumpLine.FindStringSubmatch(line)
		if strings.HasPrefix(line, "\t\t") && !owned(table, in) && (jump == nil || !owned(table, jump[1])) && tracking.MatchString(line) {
			return true
		}
	}
	return false
}

// translates reports whether kube-proxy has rules that translate to an endpoint. On a
// cluster without IPv6 it has rules for IPv6, too, but none of these.
func (f Found) translates(family string) bool {
	return slices.ContainsFunc(f.NFTables, func(t NFTable) bool { return t.Family == family && t.Endpoints > 0 }) ||
		slices.ContainsFunc(f.IPTables, func(i IPTables) bool {
			return i.Family == family && slices.ContainsFunc(i.Tables, func(t Table) bool { return slices.ContainsFunc(t.Chains, toEndpoint) })
		})
}

func toEndpoint(chain string) bool { return strings.HasPrefix(chain, "KUBE-SEP-") }
