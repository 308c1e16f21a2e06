package config

import (
	"encoding/json"
	"errors"
	"fmt"
	stdmaps "maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

const fileFlag = "config"

// Bind defines all flags on fs.
func Bind(fs *pflag.FlagSet) {
	fs.String(fileFlag, "", "YAML file with the same keys as flags")
	for _, o := range options() {
		usage := o.usage
		if o.allowed != "" {
			usage += " (" + o.allowed + ")"
		}
		if o.list {
			fs.StringSlice(o.name, o.split(o.def), usage)
		} else {
			fs.String(o.name, o.def, usage)
			if o.boolean {
				fs.Lookup(o.name).NoOptDefVal = "true"
			}
		}
	}
}

// Resolve returns the configuration from parsed flags, the environment (as
// os.Environ gives it) and the file named by --config. A flag beats the
// environment, the environment beats the file, the file beats the default. All
// that is wrong is in the error, each part with where it came from; what is only
// odd is in the warnings of the configuration.
func Resolve(fs *pflag.FlagSet, env []string) (Config, error) {
	vars, warnings := environment(env)
	path := fs.Lookup(fileFlag).Value.String()
	if path == "" {
		path = vars[fileFlag]
	}
	file, err := readFile(path)
	if err != nil {
		return Config{}, err
	}
	errs := unknownKeys(path, file)
	c := Config{Warnings: warnings}
	for _, o := range options() {
		if err := o.resolve(&c, fs, vars, path, file); err != nil {
			errs = append(errs, err)
		}
	}
	return c, errors.Join(append(errs, c.check())...)
}

func (o option) resolve(c *Config, fs *pflag.FlagSet, vars map[string]string, path string, file map[string]any) error {
	if fs.Changed(o.name) {
		values, err := flagValues(fs, o)
		if err != nil {
			return err
		}
		return o.apply(c, values, "flag --"+o.name)
	}
	if v, ok := vars[o.name]; ok {
		return o.apply(c, o.split(v), "env "+envName(o.name))
	}
	if v, ok := file[o.name]; ok {
		from := fmt.Sprintf("file %s: key %s", path, o.name)
		values, err := o.fileValues(v)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		return o.apply(c, values, from)
	}
	return o.apply(c, o.split(o.def), "default of --"+o.name)
}

func (o option) apply(c *Config, values []string, from string) error {
	err := o.set(c, values)
	if errors.Is(err, errNotAllowed) {
		return fmt.Errorf("%s: %q: allowed are %s", from, strings.Join(values, ","), o.allowed)
	}
	return err
}

func (o option) split(v string) []string {
	if !o.list {
		return []string{v}
	}
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

func flagValues(fs *pflag.FlagSet, o option) ([]string, error) {
	if o.list {
		return fs.GetStringSlice(o.name)
	}
	v, err := fs.GetString(o.name)
	return []string{v}, err
}

func readFile(path string) (map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var m map[string]any
	// As floats, large numbers would come out as 4.194304e+06.
	exact := func(d *json.Decoder) *json.Decoder { d.UseNumber(); return d }
	if err := yaml.UnmarshalStrict(b, &m, exact); err != nil {
		return nil, fmt.Errorf("file %s: %w", path, err)
	}
	return m, nil
}

func unknownKeys(path string, file map[string]any) []error {
	var names []string
	for _, o := range options() {
		names = append(names, o.name)
	}
	slices.Sort(names)
	var errs []error
	for _, key := range slices.Sorted(stdmaps.Keys(file)) {
		if !slices.Contains(names, key) {
			errs = append(errs, fmt.Errorf("file %s: key %s: unknown; there are %s", path, key, strings.Join(names, ", ")))
		}
	}
	return errs
}

// fileValues turns a YAML value into what a flag would have been given.
func (o option) fileValues(v any) ([]string, error) {
	if l, ok := v.([]any); ok && o.list {
		values := make([]string, len(l))
		for i, e := range l {
			values[i] = fmt.Sprint(e)
		}
		return values, nil
	}
	switch v := v.(type) {
	case bool:
		if !v && o.off {
			return []string{"off"}, nil
		}
		return []string{fmt.Sprint(v)}, nil
	case string, json.Number:
		return []string{fmt.Sprint(v)}, nil
	}
	if o.list {
		return nil, fmt.Errorf("%v: want a value or a list of values", v)
	}
	return nil, fmt.Errorf("%v: want a single value", v)
}
