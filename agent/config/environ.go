package config

import (
	"fmt"
	stdmaps "maps"
	"regexp"
	"slices"
	"strings"
)

// EnvPrefix begins the names of environment variables: --node-name is
// EBB_NODE_NAME. Lists are separated by commas.
const EnvPrefix = "EBB_"

func envName(option string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// serviceLink matches the variables by which the kubelet tells a container of
// the Services in its namespace. One called "ebb" must not keep the agent from
// starting, nor set an option whose variable has the same name.
var serviceLink = regexp.MustCompile(`^[A-Z0-9_]+(_SERVICE_HOST=|_SERVICE_PORT(_[A-Z0-9_]+)?=` +
	`|_PORT=(tcp|udp|sctp)://|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)

// environment returns the values set by EBB_… variables, by option, and a
// warning for each that sets none. These are no errors: in a cluster others
// decide about variables too.
func environment(env []string) (vars map[string]string, warnings []string) {
	known := map[string]string{envName(fileFlag): fileFlag}
	for _, o := range options() {
		known[envName(o.name)] = o.name
	}
	vars = make(map[string]string)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix) || serviceLink.MatchString(kv) {
			continue
		}
		if option, ok := known[name]; ok {
			vars[option] = value
			continue
		}
		warnings = append(warnings, unknownVariable(name, known))
	}
	slices.Sort(warnings)
	return vars, warnings
}

func unknownVariable(name string, known map[string]string) string {
	text := fmt.Sprintf("environment variable %s sets nothing: there is no option of that name", name)
	if like := nearest(name, slices.Sorted(stdmaps.Keys(known))); like != "" {
		text += "; did you mean " + like + "?"
	}
	return text
}

// nearest returns which of names was probably meant by name, empty if none is
// like it: most of the characters have to be right.
func nearest(name string, names []string) string {
	best, least := "", len(name)/3+1
	for _, n := range names {
		if d := distance(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of characters to insert, delete or replace that turn a
// into b, after Levenshtein.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
