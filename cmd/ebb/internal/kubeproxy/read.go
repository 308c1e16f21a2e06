package kubeproxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdmaps "maps"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const (
	apiVersion = "kubeproxy.config.k8s.io/v1alpha1"
	kindName   = "KubeProxyConfiguration"
)

// document is a configuration, and the server of the kubeconfig beside it.
type document struct {
	keys   map[string]any
	server string
}

// read finds the configuration in text: YAML or JSON, alone or beside other documents, or
// in a ConfigMap.
func read(text []byte) (document, error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var kinds []string
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return document{}, err
		}
		keys, err := parse(doc)
		if err != nil {
			return document{}, err
		}
		switch kind, _ := keys["kind"].(string); {
		case kind == kindName:
			return document{keys: keys}, nil
		case kind == "ConfigMap":
			return fromConfigMap(keys)
		case len(keys) > 0:
			kinds = append(kinds, fmt.Sprintf("%q", kind))
		}
	}
	if len(kinds) == 0 {
		return document{}, fmt.Errorf("it is empty: must be a %s or a ConfigMap that holds one", kindName)
	}
	return document{}, fmt.Errorf("kind %s: must be %s, or a ConfigMap that holds one", strings.Join(kinds, ", "), kindName)
}

// parse refuses keys that are there twice.
func parse(doc []byte) (map[string]any, error) {
	text, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var raw any
	if err := d.Decode(&raw); err != nil {
		return nil, err
	}
	keys, ok := raw.(map[string]any)
	if !ok && raw != nil {
		return nil, fmt.Errorf("%.40s: must be a map of keys", text)
	}
	return keys, nil
}

// fromConfigMap takes the configuration out of a manifest: kubeadm's name for it is
// config.conf, others have others.
func fromConfigMap(manifest map[string]any) (document, error) {
	data, _ := manifest["data"].(map[string]any)
	for _, name := range slices.Sorted(stdmaps.Keys(data)) {
		text, _ := data[name].(string)
		keys, err := parse([]byte(text))
		if name == "config.conf" && err != nil {
			return document{}, fmt.Errorf("ConfigMap: data %s: %w", name, err)
		}
		if err == nil && keys["kind"] == kindName {
			kubeconfig, _ := data["kubeconfig.conf"].(string)
			return document{keys: keys, server: server(kubeconfig)}, nil
		}
	}
	return document{}, fmt.Errorf("ConfigMap: data has the keys %q: none holds a %s (kubeadm's is config.conf)", slices.Sorted(stdmaps.Keys(data)), kindName)
}

// server returns that of a kubeconfig with a single cluster, empty if there are more or
// none.
func server(kubeconfig string) string {
	var c struct {
		Clusters []struct{ Cluster struct{ Server string } }
	}
	if yaml.Unmarshal([]byte(kubeconfig), &c) != nil || len(c.Clusters) != 1 {
		return ""
	}
	return c.Clusters[0].Cluster.Server
}

// flatten returns the values of keys by path, for all that the table has.
func flatten(prefix string, keys map[string]any, table map[string]Key, out map[string]any) (unknown []string) {
	for name, v := range keys {
		path := prefix + name
		below, isMap := v.(map[string]any)
		switch _, known := table[path]; {
		case known:
			out[path] = v
		case isMap && parent(path, table):
			unknown = append(unknown, flatten(path+".", below, table, out)...)
		case v == nil && parent(path, table):
		default:
			unknown = append(unknown, path)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// parent reports whether the table has keys below path.
func parent(path string, table map[string]Key) bool {
	for k := range table {
		if strings.HasPrefix(k, path+".") {
			return true
		}
	}
	return false
}
