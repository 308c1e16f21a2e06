package leftovers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Removal is one command, and what goes by it.
type Removal struct {
	Removes []string // a line each
	Program string
	Args    []string
	Input   string // standard input
}

// lockWait is how long other users of iptables are waited for, in seconds.
const lockWait = "10"

// Removals returns the commands that remove what was found, in the order in which they
// have to be executed: what refers before what is referred to, the device of the IPVS
// mode, by which that is known, at the end.
func (f Found) Removals() []Removal {
	var all []Removal
	if len(f.NFTables) > 0 {
		all = append(all, removeNFT(f.NFTables))
	}
	if len(f.IPVS.Servers) > 0 {
		all = append(all, removeServers(f.IPVS.Servers))
	}
	for _, i := range f.IPTables {
		if r := i.removal(); r.Input != "" {
			all = append(all, r)
		}
	}
	for _, s := range f.IPVS.Sets {
		all = append(all, Removal{Removes: []string{"IP set " + s}, Program: "ipset", Args: []string{"destroy", s}})
	}
	if f.IPVS.Device {
		all = append(all, Removal{Removes: []string{"device " + ipvsDevice}, Program: "ip", Args: []string{"link", "delete", ipvsDevice}})
	}
	return all
}

func removeNFT(tables []NFTable) Removal {
	r := Removal{Program: "nft", Args: []string{"-f", "-"}}
	for _, t := range tables {
		r.Removes = append(r.Removes, t.String())
		r.Input += fmt.Sprintf("delete table %s %s\n", t.Family, proxyTable)
	}
	return r
}

func removeServers(servers []Server) Removal {
	r := Removal{Program: "ipvsadm", Args: []string{"--restore"}}
	for _, s := range servers {
		r.Removes = append(r.Removes, "IPVS virtual server "+s.String())
		r.Input += "-D " + s.option() + "\n"
	}
	return r
}

// removal empties and deletes the chains of all tables, and the jumps to them. A table
// changes as a whole or not at all.
func (i IPTables) removal() Removal {
	r := Removal{Program: i.restore, Args: []string{"--noflush", "--wait", lockWait}}
	var in strings.Builder
	for _, t := range i.Tables {
		if t.empty() {
			continue
		}
		where := fmt.Sprintf("iptables (%s) %s table %s: ", i.Backend, i.Family, t.Name)
		in.WriteString("*" + t.Name + "\n")
		for _, c := range t.Chains {
			in.WriteString(":" + c + " - [0:0]\n") // empties it
		}
		for _, jump := range t.Jumps {
			in.WriteString(jump + "\n")
			r.Removes = append(r.Removes, where+"rule "+strings.TrimPrefix(jump, "-D "))
		}
		for _, c := range t.Chains {
			in.WriteString("-X " + c + "\n")
			r.Removes = append(r.Removes, where+"chain "+c)
		}
		in.WriteString("COMMIT\n")
	}
	r.Input = in.String()
	return r
}

// what names what goes, in short.
func (r Removal) what() string {
	if n := len(r.Removes); n > 1 {
		return fmt.Sprintf("%s and %d more", r.Removes[0], n-1)
	}
	return strings.Join(r.Removes, "")
}

// Print writes what would be executed, as a shell takes it.
func (r Removal) Print(w io.Writer) error {
	line := commandLine(r.Program, r.Args)
	if r.Input != "" {
		line += " <<'EOF'\n" + r.Input + "EOF"
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// Remove executes all removals on m and writes what is gone, a line each. One that fails
// keeps no other from being tried; the error has all of them.
func Remove(ctx context.Context, m Machine, all []Removal, w io.Writer) error {
	var errs []error
	for _, r := range all {
		if !m.Has(r.Program) {
			errs = append(errs, fmt.Errorf("%s: %s is not in PATH; install it, or run kube-proxy --cleanup", r.what(), r.Program))
			continue
		}
		if _, err := m.Run(ctx, r.Input, r.Program, r.Args...); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, what := range r.Removes {
			if _, err := fmt.Fprintln(w, "removed", what); err != nil {
				return err
			}
		}
	}
	return errors.Join(errs...)
}
