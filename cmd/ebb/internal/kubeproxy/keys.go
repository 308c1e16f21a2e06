package kubeproxy

import (
	"slices"
	"strings"
)

// Key is one key of kube-proxy's configuration.
type Key struct {
	// Path is the key with those it is below; all that is below a Path with a map is
	// part of it.
	Path string
	// Becomes are options of ebb or values of the chart; none: there is no equivalent.
	Becomes []string
	// Note says how it becomes that, or why ebb does without.
	Note string

	kind    kind
	convert func(c *conversion, v value) error // nil: nothing
	differs func(c *conversion, v value) bool  // nil: nobody notices
}

// Keys are all keys there are.
func Keys() []Key {
	return slices.Concat(general(), whoIsLocal(), conntrack(), modes(), process(), windows())
}

func general() []Key {
	const (
		asks = "client-go's choice"
		idle = "agents list and watch, and write an Event now and then: there is nothing to limit"
	)
	return []Key{
		{Path: "apiVersion", kind: str, Note: "has to be " + apiVersion},
		{Path: "kind", kind: str, Note: "has to be " + kindName},
		{Path: "mode", kind: str, convert: setMode, Note: "ebb has one way of working. Only the keys of the mode that is used count"},
		{Path: "bindAddress", kind: ownAddress, differs: always,
			Note: "agents take the addresses of their Node object. On a single node that has others: `--node-addresses`"},
		{Path: "hostnameOverride", kind: str, Note: "the chart gives each agent the name of its node. Without the chart: `--node-name`"},
		{Path: "healthzBindAddress", kind: str, Becomes: []string{"agent.healthAddr"}, convert: address("agent", "healthAddr", "10256"), Note: "as it is; without a port, 10256"},
		{Path: "metricsBindAddress", kind: str, Becomes: []string{"agent.metricsAddr"}, convert: address("agent", "metricsAddr", "10249"), Note: "as it is; without a port, 10249"},
		{Path: "nodePortAddresses", kind: list, Becomes: []string{"--nodeport-addresses"}, convert: setNodePorts,
			Note: "as it is. Without it, all addresses in the modes iptables and ipvs, which is `all` here, and the primary ones in the mode nftables, which is ebb's default"},
		{Path: "clientConnection.kubeconfig", kind: str, Becomes: []string{"kubeApi.servers"}, convert: setServer,
			Note: "agents have a service account of their own. In a ConfigMap of kubeadm the server of its kubeconfig.conf becomes `kubeApi.servers`; else `helm install` asks the cluster for its API servers, or name a file of each node by `kubeApi.nodeKubeconfig`"},
		{Path: "clientConnection.acceptContentTypes", kind: str, Note: asks},
		{Path: "clientConnection.contentType", kind: str, Note: asks},
		{Path: "clientConnection.qps", kind: number, Note: idle},
		{Path: "clientConnection.burst", kind: number, Note: idle},
	}
}

func whoIsLocal() []Key {
	return []Key{
		{Path: "clusterCIDR", kind: str, Becomes: []string{"--cluster-cidr"}, convert: setClusterCIDR, Note: "as it is"},
		{Path: "detectLocalMode", kind: str, Becomes: []string{"--detect-local-mode"}, convert: text("detect-local-mode"), Note: "the same words"},
		{Path: "detectLocal.bridgeInterface", kind: str, Becomes: []string{"--pod-bridge-interface"}, convert: text("pod-bridge-interface"), Note: "as it is"},
		{Path: "detectLocal.interfaceNamePrefix", kind: str, Becomes: []string{"--pod-interface-name-prefix"}, convert: text("pod-interface-name-prefix"), Note: "as it is"},
	}
}

func conntrack() []Key {
	const note = "as it is; ebb never lowers what the kernel has"
	return []Key{
		{Path: "conntrack.maxPerCore", kind: optionalNumber, Becomes: []string{"--conntrack-max-per-core"}, convert: plain("conntrack-max-per-core"), Note: note},
		{Path: "conntrack.min", kind: optionalNumber, Becomes: []string{"--conntrack-min"}, convert: plain("conntrack-min"), Note: note},
		{Path: "conntrack.tcpEstablishedTimeout", kind: optionalDuration, Becomes: []string{"--conntrack-tcp-timeout-established"}, convert: text("conntrack-tcp-timeout-established"), Note: note},
		{Path: "conntrack.tcpCloseWaitTimeout", kind: optionalDuration, Becomes: []string{"--conntrack-tcp-timeout-close-wait"}, convert: text("conntrack-tcp-timeout-close-wait"), Note: note},
		{Path: "conntrack.tcpBeLiberal", kind: boolean, Becomes: []string{"--conntrack-tcp-be-liberal"}, convert: plain("conntrack-tcp-be-liberal"), Note: "as it is"},
		{Path: "conntrack.udpTimeout", kind: duration, Becomes: []string{"--conntrack-udp-timeout"}, convert: text("conntrack-udp-timeout"), Note: note},
		{Path: "conntrack.udpStreamTimeout", kind: duration, Becomes: []string{"--conntrack-udp-timeout-stream"}, convert: text("conntrack-udp-timeout-stream"), Note: note},
	}
}

// modes are the keys that count in one mode of kube-proxy only.
func modes() []Key {
	const (
		mark = "ebb marks no packets for masquerading. Only rules of yours that look for kube-proxy's mark would notice"
		all  = "ebb gives the node's address to what it sends to other nodes from outside, and to nothing else. If pods' answers to pods come back only because of masqueradeAll, the network plugin has to route them"
		sync = "ebb writes what changes, and looks every ten seconds whether its programs are still attached"
		min  = "as it is, at most 1m. Without it, kube-proxy waits 1s and ebb 50ms"
		idle = "ebb keeps connections itself, for the times in docs/architecture.md, which cannot be set; established TCP for 24 h"
	)
	minSync := []string{"--min-sync-interval"}
	return []Key{
		{Path: "iptables.masqueradeBit", kind: optionalNumber, Note: mark},
		{Path: "iptables.masqueradeAll", kind: boolean, differs: inMode("iptables", "ipvs"), Note: all},
		{Path: "iptables.localhostNodePorts", kind: trueBoolean, differs: inMode("iptables"),
			Note: "processes of the node reach node ports on loopback, as by default. To have none there, list the node's addresses in `--nodeport-addresses`"},
		{Path: "iptables.syncPeriod", kind: duration, Note: sync},
		{Path: "iptables.minSyncPeriod", kind: duration, Becomes: minSync, convert: setMinSync, Note: min},
		{Path: "ipvs.syncPeriod", kind: duration, Note: sync},
		{Path: "ipvs.minSyncPeriod", kind: duration, Becomes: minSync, convert: setMinSync, Note: min},
		{Path: "ipvs.scheduler", kind: str, differs: otherThanRoundRobin,
			Note: "ebb chooses by Maglev's tables, evenly. Weights and numbers of connections do not count; for one client to keep its backend use sessionAffinity"},
		{Path: "ipvs.excludeCIDRs", kind: list, Note: "ebb uses no IPVS. Give the ranges to `ebb migrate finish --ipvs-exclude`"},
		{Path: "ipvs.strictARP", kind: boolean, Note: "ebb puts no addresses on devices, so that nobody is answered by mistake"},
		{Path: "ipvs.tcpTimeout", kind: duration, differs: inMode("ipvs"), Note: idle},
		{Path: "ipvs.tcpFinTimeout", kind: duration, Note: idle},
		{Path: "ipvs.udpTimeout", kind: duration, differs: inMode("ipvs"), Note: idle + ", UDP for 30 s to 180 s"},
		{Path: "nftables.masqueradeBit", kind: optionalNumber, Note: mark},
		{Path: "nftables.masqueradeAll", kind: boolean, differs: inMode("nftables"), Note: all},
		{Path: "nftables.syncPeriod", kind: duration, Note: sync},
		{Path: "nftables.minSyncPeriod", kind: duration, Becomes: minSync, convert: setMinSync, Note: min},
	}
}

// process are the keys about kube-proxy as a process.
func process() []Key {
	const logging = "ebb logs text to standard error, unbuffered"
	return []Key{
		{Path: "featureGates", kind: mapping, Note: "gates of kube-proxy's; ebb has none"},
		{Path: "logging.verbosity", kind: number, Becomes: []string{"--log-level"}, convert: setLogLevel, Note: "`debug` from 4 on; else `info`, which is the default"},
		{Path: "logging.format", kind: str, differs: isJSON, Note: "ebb logs lines of key=value"},
		{Path: "logging.flushFrequency", kind: anything, Note: logging},
		{Path: "logging.vmodule", kind: anything, Note: "there is one level for all of ebb"},
		{Path: "logging.options.text.splitStream", kind: boolean, Note: logging},
		{Path: "logging.options.text.infoBufferSize", kind: anything, Note: logging},
		{Path: "logging.options.json.splitStream", kind: boolean, Note: logging},
		{Path: "logging.options.json.infoBufferSize", kind: anything, Note: logging},
		{Path: "bindAddressHardFail", kind: boolean, differs: always,
			Note: "a port that somebody else has is logged and tried again; for a health check node port it is an Event on the Service, too"},
		{Path: "enableProfiling", kind: boolean, differs: always, Note: "ebb has no /debug/pprof"},
		{Path: "showHiddenMetricsForVersion", kind: str, Note: "ebb hides no metrics"},
		{Path: "oomScoreAdj", kind: optionalNumber, Note: "the kubelet sets it by the chart's priorityClassName: -997"},
		{Path: "configSyncPeriod", kind: duration, Note: "ebb watches, and lists anew when a watch ends"},
		{Path: "portRange", kind: str, Note: "kube-proxy does not use it any more"},
	}
}

func windows() []Key {
	const note = "ebb runs on Linux only; kube-proxy ignores it there"
	var all []Key
	for _, name := range []string{"networkName", "sourceVip", "rootHnsEndpointName"} {
		all = append(all, Key{Path: "winkernel." + name, kind: str, Note: note})
	}
	for _, name := range []string{"winkernel.enableDSR", "winkernel.forwardHealthCheckVip", "windowsRunAsService"} {
		all = append(all, Key{Path: name, kind: boolean, Note: note})
	}
	return all
}

// Document returns the table, as Markdown.
func Document() string {
	var b strings.Builder
	b.WriteString("| kube-proxy | ebb | |\n|---|---|---|\n")
	for _, k := range Keys() {
		becomes := "–"
		if len(k.Becomes) > 0 {
			becomes = "`" + strings.Join(k.Becomes, "`, `") + "`"
		}
		b.WriteString("| `" + k.Path + "` | " + becomes + " | " + k.Note + " |\n")
	}
	return b.String()
}
