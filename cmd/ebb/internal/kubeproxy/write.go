package kubeproxy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// String formats s as Section.Name=Value.
func (s Setting) String() string {
	var value string
	switch v := s.Value.(type) {
	case []string:
		value = strings.Join(v, ",")
	case json.RawMessage:
		value = string(v)
	default:
		value = fmt.Sprint(v)
	}
	return s.Section + "." + s.Name + "=" + value
}

// String formats e as a line.
func (e Entry) String() string {
	return fmt.Sprintf("%s (%s): %s", e.Key, e.Value, e.Note)
}

const valuesHead = `# Values of the chart deploy/helm/ebb that say what kube-proxy's configuration says, made
# by "ebb migrate config". What is not here has ebb's default.
`

// Values returns r as values of the chart, with comments that say what each is made of
// and why some keys are missing.
func (r Result) Values() string {
	var b strings.Builder
	b.WriteString(valuesHead)
	for _, section := range []string{"kubeApi", "config", "agent"} {
		r.writeSection(&b, section)
	}
	r.writeNotes(&b, Differs, "Without an equivalent; somebody may notice:")
	r.writeNotes(&b, NotNeeded, "Without an equivalent, and without a need for one:")
	return b.String()
}

func (r Result) writeSection(b *strings.Builder, section string) {
	head := section + ":\n"
	for _, s := range r.Settings {
		if s.Section != section {
			continue
		}
		value, _ := json.Marshal(s.Value) // nothing of it can fail
		fmt.Fprintf(b, "%s  # %s\n  %s: %s\n", head, s.From, s.Name, value)
		head = ""
	}
}

func (r Result) writeNotes(b *strings.Builder, outcome, head string) {
	head = "\n# " + head + "\n"
	for _, e := range r.Entries {
		if e.Outcome != outcome {
			continue
		}
		fmt.Fprintf(b, "%s# - %s\n", head, strings.ReplaceAll(e.String(), "\n", " "))
		head = ""
	}
}
