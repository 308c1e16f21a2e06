package leftovers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// The backends of iptables.
const (
	backendNFT    = "nf_tables"
	backendLegacy = "legacy"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	name, title string
	program     string // of iptables
	legacy      string // the file that names the tables of the legacy backend
}

func families() []family {
	return []family{
		{"ip", "IPv4", "iptables", "/proc/net/ip_tables_names"},
		{"ip6", "IPv6", "ip6tables", "/proc/net/ip6_tables_names"},
	}
}

// legacyTables returns the tables of the legacy backend. Saving any other one would
// have the kernel make it.
func (f family) legacyTables(m Machine) ([]string, error) {
	names, err := m.Read(f.legacy)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(names), err
}

// find returns the program (without -save and -restore) of a backend; empty: there is
// none.
func (f family) find(ctx context.Context, m Machine, backend string) string {
	named := f.program + map[string]string{backendNFT: "-nft", backendLegacy: "-legacy"}[backend]
	if m.Has(named+"-save") && m.Has(named+"-restore") {
		return named
	}
	if !m.Has(f.program+"-save") || !m.Has(f.program+"-restore") {
		return ""
	}
	version, err := m.Run(ctx, "", f.program+"-save", "--version")
	if err != nil || strings.Contains(version, backendNFT) != (backend == backendNFT) {
		return ""
	}
	return f.program
}

// look adds to found what the backends of f have, and returns what remains of them
// without it.
func (f family) look(ctx context.Context, m Machine, n nft, found *Found) (remains, error) {
	var left remains
	legacy, err := f.legacyTables(m)
	if err != nil {
		return left, err
	}
	if len(legacy) > 0 {
		if left, err = f.save(ctx, m, backendLegacy, found, func(string) bool { return true }); err != nil {
			return left, err
		}
	}
	suspects := n.owned(f.name)
	if n.known && len(suspects) == 0 {
		return left, nil
	}
	more, err := f.save(ctx, m, backendNFT, found, func(table string) bool { return !n.known || slices.Contains(suspects, table) })
	return left.or(more), err
}

// save reads the tables of a backend. unread tables in which something may be are
// unknown.
func (f family) save(ctx context.Context, m Machine, backend string, found *Found, matters func(table string) bool) (remains, error) {
	program := f.find(ctx, m, backend)
	if program == "" {
		if slices.ContainsFunc([]string{"nat", "filter", "mangle"}, matters) {
			found.Unknown = append(found.Unknown, fmt.Sprintf(
				"%s rules of iptables (%s) are not known: %s-save and -restore for this backend are not in PATH; install the package iptables", f.title, backend, f.program))
		}
		return remains{}, nil
	}
	out, err := m.Run(ctx, "", program+"-save")
	if err != nil {
		return remains{}, err
	}
	tables, unread := parseSaved(out)
	for _, table := range unread {
		if matters(table) {
			found.Unknown = append(found.Unknown, fmt.Sprintf(
				"%s table %s (%s) is not known: %s-save cannot read it; a program other than iptables has put rules there", f.title, table, backend, program))
		}
	}
	f.add(found, backend, program, tables)
	var left remains
	for _, t := range tables {
		left = left.or(t.remains())
	}
	return left, nil
}

func (f family) add(found *Found, backend, program string, tables []saved) {
	i := IPTables{Backend: backend, Family: f.name, restore: program + "-restore"}
	for _, s := range tables {
		t := s.split()
		if t.empty() && len(t.Kept) == 0 {
			continue
		}
		i.Tables = append(i.Tables, t)
		for _, k := range t.Kept {
			found.Notes = append(found.Notes, fmt.Sprintf("%s table %s (%s): %s stays, because chain %s, which is not kube-proxy's, uses it", f.title, t.Name, backend, k.Chain, k.For))
		}
		if slices.Contains(t.Chains, "KUBE-FORWARD") && slices.Contains(s.chains, chain{"FORWARD", "DROP"}) {
			found.Notes = append(found.Notes, fmt.Sprintf("%s table %s (%s): the policy of FORWARD is DROP; without KUBE-FORWARD, packets to and from pods need another rule that accepts them", f.title, t.Name, backend))
		}
	}
	if len(i.Tables) > 0 {
		found.IPTables = append(found.IPTables, i)
	}
}
