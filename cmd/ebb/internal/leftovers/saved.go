package leftovers

import (
	"strings"
)

// saved is one table as iptables-save prints it.
type saved struct {
	name   string
	chains []chain
	rules  []rule
}

type chain struct {
	name   string
	policy string // "-": no chain of the kernel's
}

func (c chain) builtin() bool { return c.policy != "-" }

// rule is one rule of a chain. spec is what follows the name of the chain, in the
// words of iptables-restore.
type rule struct {
	chain, spec string
	target      string // of -j or -g
}

// parseSaved takes the output of iptables-save. Tables that it says it cannot read are
// returned by name in unread.
func parseSaved(text string) (tables []saved, unread []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line == "COMMIT":
		case line[0] == '#':
			if _, rest, ok := strings.Cut(line, "Table `"); ok && strings.Contains(rest, "is incompatible") {
				name, _, _ := strings.Cut(rest, "'")
				unread = append(unread, name)
			}
		case line[0] == '*':
			tables = append(tables, saved{name: line[1:]})
		case len(tables) > 0:
			tables[len(tables)-1].add(line)
		}
	}
	return tables, unread
}

// add takes the line of a chain or a rule.
func (s *saved) add(line string) {
	if line[0] == ':' {
		if f := strings.Fields(line[1:]); len(f) >= 2 {
			s.chains = append(s.chains, chain{name: f[0], policy: f[1]})
		}
		return
	}
	if line[0] == '[' { // counters: iptables-save -c
		_, line, _ = strings.Cut(line, "] ")
	}
	rest, ok := strings.CutPrefix(line, "-A ")
	if !ok {
		return
	}
	name, spec, _ := strings.Cut(rest, " ")
	s.rules = append(s.rules, rule{chain: name, spec: spec, target: target(spec)})
}

// target returns where a rule goes on, empty if nowhere else.
func target(spec string) string {
	words := words(spec)
	for i, w := range words[:max(0, len(words)-1)] {
		if w == "-j" || w == "-g" {
			return words[i+1]
		}
	}
	return ""
}

// words splits what iptables-save prints: words that have spaces are in double quotes,
// in which a backslash protects the next character.
func words(spec string) []string {
	var all []string
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(spec); i++ {
		switch c := spec[i]; {
		case c == '\\' && quoted && i+1 < len(spec):
			i++
			word.WriteByte(spec[i])
		case c == '"':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			if begun {
				all = append(all, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if begun {
		all = append(all, word.String())
	}
	return all
}
