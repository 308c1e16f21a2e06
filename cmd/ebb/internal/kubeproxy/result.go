package kubeproxy

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ebb-lb/ebb/agent/config"
)

// Convert reads kube-proxy's configuration, as a file or a ConfigMap has it. All that is
// wrong with it is in the error.
func Convert(text []byte) (Result, error) {
	doc, err := read(text)
	if err != nil {
		return Result{}, err
	}
	if v := doc.keys["apiVersion"]; v != apiVersion {
		return Result{}, fmt.Errorf("apiVersion: %v: must be %s", v, apiVersion)
	}
	table := map[string]Key{}
	for _, k := range Keys() {
		table[k.Path] = k
	}
	values := map[string]any{}
	var errs []error
	for _, path := range flatten("", doc.keys, table, values) {
		errs = append(errs, unknownKey(path, table))
	}
	c := &conversion{mode: modeOf(values), server: doc.server}
	r := Result{Mode: c.mode}
	for _, k := range Keys() {
		raw, ok := values[k.Path]
		if !ok || k.Path == "apiVersion" || k.Path == "kind" {
			continue
		}
		e, err := c.entry(k, raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k.Path, err))
		}
		r.Entries = append(r.Entries, e)
	}
	c.implied()
	r.Settings = c.settings
	if len(errs) == 0 {
		errs = append(errs, r.check())
	}
	return r, errors.Join(errs...)
}

// check has the agent's own rules applied to the options.
func (r Result) check() error {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.Bind(fs)
	for _, s := range r.Settings {
		if s.Section != "config" {
			continue
		}
		_, value, _ := strings.Cut(s.String(), "=")
		if err := fs.Set(s.Name, value); err != nil {
			return fmt.Errorf("%s: option %s: %w", s.From, s.Name, err)
		}
	}
	if _, err := config.Resolve(fs, nil); err != nil {
		return fmt.Errorf("the options it becomes: %w", err)
	}
	return nil
}

func modeOf(values map[string]any) string {
	if mode, ok := values["mode"].(string); ok && mode != "" {
		return mode
	}
	return "iptables"
}

// entry says what becomes of a key.
func (c *conversion) entry(k Key, raw any) (Entry, error) {
	v, err := k.kind.parse(raw)
	e := Entry{Key: k.Path, Value: v.text, Outcome: Default}
	if err != nil || !v.set {
		return e, err
	}
	before := len(c.settings)
	c.key = k.Path
	if k.convert != nil {
		if err := k.convert(c, v); err != nil {
			return e, err
		}
	}
	for _, s := range c.settings[before:] {
		e.Values = append(e.Values, s.String())
	}
	switch {
	case len(e.Values) > 0:
		e.Outcome = Mapped
		return e, nil
	case k.differs != nil && k.differs(c, v):
		e.Outcome = Differs
	default:
		e.Outcome = NotNeeded
	}
	e.Note = k.Note
	if mode, _, ok := strings.Cut(k.Path, "."); ok && e.Outcome == NotNeeded && c.otherMode(mode) && !c.shared(k.Path) {
		e.Note = "counts in the mode " + mode + " only"
	}
	return e, nil
}

// otherMode reports whether keys below a name are those of a mode that is not used.
func (c *conversion) otherMode(name string) bool {
	return slices.Contains(modeNames(), name) && name != c.mode
}

// shared reports whether the mode takes a key of another one.
func (c *conversion) shared(path string) bool {
	return c.mode == "ipvs" && strings.HasPrefix(path, "iptables.masquerade")
}

// implied adds what kube-proxy does by default and ebb does not.
func (c *conversion) implied() {
	given := slices.ContainsFunc(c.settings, func(s Setting) bool { return s.Name == "nodeport-addresses" })
	if !given && c.mode != "nftables" {
		c.key = "without nodePortAddresses, node ports are on all addresses in the mode " + c.mode
		_ = c.option("nodeport-addresses", []string{"all"})
	}
}

// unknownKey names the keys that there are beside it.
func unknownKey(path string, table map[string]Key) error {
	where := path[:strings.LastIndexByte(path, '.')+1]
	beside := map[string]bool{}
	for k := range table {
		if rest, ok := strings.CutPrefix(k, where); ok {
			name, _, _ := strings.Cut(rest, ".")
			beside[name] = true
		}
	}
	return fmt.Errorf("%s: unknown key: must be one of %s", path, strings.Join(slices.Sorted(stdmaps.Keys(beside)), ", "))
}

// Differing returns the entries that somebody may notice.
func (r Result) Differing() []Entry {
	return slices.DeleteFunc(slices.Clone(r.Entries), func(e Entry) bool { return e.Outcome != Differs })
}

// Implied returns the settings that no key of the configuration has become.
func (r Result) Implied() []Setting {
	return slices.DeleteFunc(slices.Clone(r.Settings), func(s Setting) bool {
		return slices.ContainsFunc(r.Entries, func(e Entry) bool { return slices.Contains(e.Values, s.String()) })
	})
}
