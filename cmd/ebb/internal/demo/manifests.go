package demo

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// The service of the demo.
const (
	namespace    = "demo"
	serviceName  = "web"
	httpPort     = 80
	echoPort     = 5353
	httpNodePort = 30080
	echoNodePort = 30053
)

// manifests is the directory that both agents read.
type manifests struct{ dir string }

// endpoint is a pod as EndpointSlices show it. It serves; it is ready unless
// it is terminating.
type endpoint struct {
	node        string
	v4, v6      netip.Addr
	terminating bool
}

// writeCluster writes what does not change: the nodes and the service.
func (m manifests) writeCluster(nodes []*lab.Node) error {
	var docs []any
	for _, n := range nodes {
		docs = append(docs, nodeManifest(n.Name(), n.Addr4, n.Addr6))
	}
	if err := m.write("nodes.yaml", docs...); err != nil {
		return err
	}
	return m.write("service.yaml", serviceManifest())
}

// writeEndpoints writes where the pods are, one slice per address family.
func (m manifests) writeEndpoints(eps []endpoint) error {
	return m.write("endpoints.yaml",
		sliceManifest("IPv4", eps, func(e endpoint) netip.Addr { return e.v4 }),
		sliceManifest("IPv6", eps, func(e endpoint) netip.Addr { return e.v6 }))
}

// write replaces a file at once, so that a reader sees the old or the new one.
func (m manifests) write(name string, docs ...any) error {
	var buf bytes.Buffer
	for _, d := range docs {
		text, err := yaml.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		buf.WriteString("---\n")
		buf.Write(text)
	}
	temp := filepath.Join(m.dir, "."+name)
	if err := os.WriteFile(temp, buf.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(m.dir, name)); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// object is a part of a manifest.
type object = map[string]any

func nodeManifest(name string, addrs ...netip.Addr) object {
	var list []object
	for _, a := range addrs {
		list = append(list, object{"type": "InternalIP", "address": a.String()})
	}
	return object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": name},
		"status":   object{"addresses": list},
	}
}

// clusterIPs are those of the service.
func clusterIPs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("10.96.0.80"), netip.MustParseAddr("fd00:10:96::80")}
}

func serviceManifest() object {
	vip4, vip6 := lab.DefaultVIPs()
	return object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": serviceName, "namespace": namespace},
		"spec": object{
			"type":       "LoadBalancer",
			"clusterIP":  clusterIPs()[0],
			"clusterIPs": clusterIPs(),
			"ipFamilies": []string{"IPv4", "IPv6"}, "ipFamilyPolicy": "RequireDualStack",
			"ports": []object{
				{"name": "http", "protocol": "TCP", "port": httpPort, "targetPort": pod.HTTPPort, "nodePort": httpNodePort},
				{"name": "echo", "protocol": "UDP", "port": echoPort, "targetPort": pod.UDPPort, "nodePort": echoNodePort},
			},
		},
		"status": object{"loadBalancer": object{"ingress": []object{
			{"ip": vip4.String(), "ipMode": "VIP"},
			{"ip": vip6.String(), "ipMode": "VIP"},
		}}},
	}
}

func sliceManifest(family string, eps []endpoint, addr func(endpoint) netip.Addr) object {
	list := []object{}
	for _, e := range eps {
		list = append(list, object{
			"addresses": []string{addr(e).String()},
			"nodeName":  e.node,
			"conditions": object{
				"ready": !e.terminating, "serving": true, "terminating": e.terminating,
			},
		})
	}
	return object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata": object{
			"name": serviceName + "-" + map[string]string{"IPv4": "v4", "IPv6": "v6"}[family], "namespace": namespace,
			"labels": object{"kubernetes.io/service-name": serviceName},
		},
		"addressType": family,
		"ports": []object{
			{"name": "http", "protocol": "TCP", "port": pod.HTTPPort},
			{"name": "echo", "protocol": "UDP", "port": pod.UDPPort},
		},
		"endpoints": list,
	}
}
