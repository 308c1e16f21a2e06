// Package metrics shows the maps and the agent's work to Prometheus. It reads
// and never decides; labels are bounded by services and verdicts, never by
// clients.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebb-lb/ebb/maps"
)

// Source is what is read at each scrape.
type Source struct {
	Counters interface {
		All() (map[maps.Hook]map[maps.Verdict]uint64, error)
	}
	Backends interface {
		All() (map[maps.BackendID]maps.Backend, error)
	}
	ServicePorts interface {
		All() (map[maps.ServicePortID]maps.ServicePort, error)
	}
	Frontends interface {
		All() (map[maps.Frontend]maps.Service, error)
	}
	Stats interface {
		Get(maps.BackendID) (maps.BackendCounts, error)
	}
	// Writes is the number of writes to each map so far.
	Writes func() map[string]uint64
}

// SourceOf returns set as a source.
func SourceOf(set *maps.Set) Source {
	return Source{
		Counters: set.Counters(), Backends: set.Backends(), ServicePorts: set.ServicePorts(),
		Frontends: set.Frontends(), Stats: set.Stats(), Writes: set.WritesByMap,
	}
}

// Collector reads the maps when it is scraped.
type Collector struct {
	source Source

	packets, writes, frontends, backends        *prometheus.Desc
	opened, closed, connections, bytes, rxBytes *prometheus.Desc
	socketsOpened, socketsClosed, socketsLive   *prometheus.Desc
}

// NewCollector returns a collector of source.
func NewCollector(source Source) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("ebb_"+name, help, labels, nil)
	}
	service := []string{"namespace", "service", "port", "protocol"}
	return &Collector{
		source:      source,
		packets:     desc("packets_total", "Packets by hook and verdict.", "hook", "verdict"),
		writes:      desc("map_writes_total", "Writes of the agent to each map since it started.", "map"),
		frontends:   desc("frontends", "Frontends in the maps."),
		backends:    desc("backends", "Backends in the maps by state.", "state"),
		opened:      desc("connections_opened_total", "Connections opened through packets (flows), by service port. Those of sockets of this node are ebb_socket_connections_opened_total.", service...),
		closed:      desc("connections_closed_total", "Connections through packets (flows) closed by FIN or RST, by service port.", service...),
		connections: desc("connections_live", "Connections through packets, by service port.", service...),
		socketsOpened: desc("socket_connections_opened_total",
			"Times a TCP or UDP socket of this node connected to a Service and got a backend, by service port.", service...),
		socketsClosed: desc("socket_connections_closed_total",
			"Those of socket_connections_opened that are over: the socket was closed, or connected elsewhere, by service port.", service...),
		socketsLive: desc("socket_connections_live",
			"Sockets of this node that are connected to a Service, also in vain, by service port.", service...),
		bytes:   desc("backend_bytes_total", "Layer 3 bytes towards backends, by service port.", service...),
		rxBytes: desc("client_bytes_total", "Layer 3 bytes towards clients, by service port.", service...),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.packets, c.writes, c.frontends, c.backends, c.opened, c.closed, c.connections, c.bytes, c.rxBytes,
		c.socketsOpened, c.socketsClosed, c.socketsLive,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for name, n := range c.source.Writes() {
		ch <- prometheus.MustNewConstMetric(c.writes, prometheus.CounterValue, float64(n), name)
	}
	c.collectPackets(ch)
	c.collectFrontends(ch)
	c.collectBackends(ch)
}

func (c *Collector) collectPackets(ch chan<- prometheus.Metric) {
	counters, err := c.source.Counters.All()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.packets, err)
		return
	}
	for hook, verdicts := range counters {
		for verdict, n := range verdicts {
			ch <- prometheus.MustNewConstMetric(c.packets, prometheus.CounterValue, float64(n), hook.String(), verdict.String())
		}
	}
}

func (c *Collector) collectFrontends(ch chan<- prometheus.Metric) {
	all, err := c.source.Frontends.All()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.frontends, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(c.frontends, prometheus.GaugeValue, float64(len(all)))
}

// sums is what the backends of one service port have done together.
type sums struct {
	maps.BackendCounts
	live, liveSockets int
}

func (c *Collector) collectBackends(ch chan<- prometheus.Metric) {
	backends, err := c.source.Backends.All()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.backends, err)
		return
	}
	names, err := c.source.ServicePorts.All()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.opened, err)
		return
	}
	states := make(map[maps.State]int)
	byPort := make(map[maps.ServicePort]*sums)
	for id, b := range backends {
		states[b.State]++
		name, named := names[b.ServicePort]
		if !named {
			continue
		}
		if byPort[name] == nil {
			byPort[name] = &sums{}
		}
		if err := c.add(byPort[name], id); err != nil {
			ch <- prometheus.NewInvalidMetric(c.opened, err)
			return
		}
	}
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(c.backends, prometheus.GaugeValue, float64(n), state.String())
	}
	for name, s := range byPort {
		c.emit(ch, name, s)
	}
}

func (c *Collector) add(s *sums, id maps.BackendID) error {
	n, err := c.source.Stats.Get(id)
	if err != nil {
		return err
	}
	s.Opened += n.Opened
	s.Closed += n.Closed
	s.SocketOpened += n.SocketOpened
	s.SocketClosed += n.SocketClosed
	s.liveSockets += n.LiveSockets()
	s.Bytes += n.Bytes
	s.RxBytes += n.RxBytes
	s.live += n.LiveFlows()
	return nil
}

func (c *Collector) emit(ch chan<- prometheus.Metric, name maps.ServicePort, s *sums) {
	labels := []string{name.Namespace, name.Service, name.Port, name.Proto.String()}
	for _, m := range []struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value float64
	}{
		{c.opened, prometheus.CounterValue, float64(s.Opened)},
		{c.closed, prometheus.CounterValue, float64(s.Closed)},
		{c.connections, prometheus.GaugeValue, float64(s.live)},
		{c.socketsOpened, prometheus.CounterValue, float64(s.SocketOpened)},
		{c.socketsClosed, prometheus.CounterValue, float64(s.SocketClosed)},
		{c.socketsLive, prometheus.GaugeValue, float64(s.liveSockets)},
		{c.bytes, prometheus.CounterValue, float64(s.Bytes)},
		{c.rxBytes, prometheus.CounterValue, float64(s.RxBytes)},
	} {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value, labels...)
	}
}
