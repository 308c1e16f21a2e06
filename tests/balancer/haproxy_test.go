package balancer

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/load"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	clusterEntry, localEntry = "127.0.0.1:8001", "127.0.0.1:8002"
	// HAProxy asks each node this often and believes a second refusal.
	probeInterval = 200 * time.Millisecond
	probeFall     = 2
	// outMost is how long a node may stay in rotation: the probes it takes, as much
	// again for a busy machine, and a second.
	outMost = 2*probeFall*probeInterval + time.Second
)

// haproxyConfig hides nothing: no retry, no other server. The probe of policy
// Cluster comes with a PROXY header, as from balancers that send it to services.
func (w *world) haproxyConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
  maxconn 2000
  stats socket %s mode 600 level admin
defaults
  mode tcp
  balance roundrobin
  retries 0
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout check 2s
`, w.statsSocket())
	section := func(name, entry, probe string, probePort, port int, more string) {
		fmt.Fprintf(&b, "listen %s\n  bind %s\n  option httpchk\n  http-check send meth GET uri %s\n  default-server check port %d inter %s fall %d rise 1 %s\n",
			name, entry, probe, probePort, probeInterval, probeFall, more)
		for _, n := range w.lab.Nodes {
			fmt.Fprintf(&b, "  server %s %s:%d\n", n.Name(), n.Addr4, port)
		}
	}
	section(serviceCluster, clusterEntry, "/healthz", healthPort, clusterPort, "check-send-proxy")
	section(serviceIn, localEntry, "/", localProbePort, localPort, "")
	return b.String()
}

func (w *world) statsSocket() string { return filepath.Join(w.dir, "haproxy.sock") }

// startHAProxy starts it where clients are, and waits until all nodes are in.
func (w *world) startHAProxy() {
	w.Helper()
	path := filepath.Join(w.dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(w.haproxyConfig()), 0o600); err != nil {
		w.Fatal(err)
	}
	p := w.start(w.lab.Client, "haproxy", "-db", "-f", path)
	w.await("HAProxy to have all nodes in rotation", func() bool {
		servers, err := w.servers()
		if err != nil || len(servers) != 2*len(w.lab.Nodes) {
			return false
		}
		for _, s := range servers {
			if s.status != "UP" || s.lastCheck != "L7OK" {
				return false
			}
		}
		return true
	}, p)
}

// server is what HAProxy thinks of a node as a server of a service.
type server struct {
	status, lastCheck string
	downs             int // how often it has left the rotation
}

type serverKey struct{ service, node string }

// servers asks HAProxy.
func (w *world) servers() (map[serverKey]server, error) {
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "unix", w.statsSocket())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "show stat"); err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(conn).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, errors.Join(errors.New("no statistics"), err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[strings.TrimPrefix(name, "# ")] = i
	}
	all := map[serverKey]server{}
	for _, row := range rows[1:] {
		key := serverKey{row[column["pxname"]], row[column["svname"]]}
		if w.lab.Node(key.node) == nil {
			continue
		}
		downs, err := strconv.Atoi(row[column["chkdown"]])
		if err != nil {
			return nil, err
		}
		all[key] = server{row[column["status"]], strings.TrimPrefix(row[column["check_status"]], "* "), downs}
	}
	return all, nil
}

// awaitStatus waits until HAProxy thinks so, and says how long it took.
func (w *world) awaitStatus(event, service string, n *lab.Node, status string) {
	w.Helper()
	took := w.await(fmt.Sprintf("%s: %s of %s to be %s", event, service, n.Name(), status), func() bool {
		servers, err := w.servers()
		return err == nil && servers[serverKey{service, n.Name()}].status == status
	})
	w.Logf("%s: %s %s is %s after %.2f s", event, n.Name(), service, status, took.Seconds())
	if status == "DOWN" && took > outMost {
		w.Errorf("%s: in rotation for %s, want at most %s", event, took, outMost)
	}
}

// client keeps both services under load.
type client struct {
	*process
	w    *world
	load *suite.Client
}

func (w *world) startClient() *client {
	w.Helper()
	cfg := load.DefaultConfig()
	cfg.HTTP = []string{clusterEntry, localEntry}
	cfg.Connects, cfg.Transfers = 80, 6
	cfg.RequestTimeout, cfg.StallTimeout = patience/2, patience/2
	running, err := suite.StartClient(w.lab.Client, cfg)
	if err != nil {
		w.Fatal(err)
	}
	c := &client{process: &process{Process: running.Process, out: running.Said}, w: w, load: running}
	return c
}

func (c *client) tell(cmd load.Command) {
	c.w.Helper()
	if err := c.load.Tell(cmd); err != nil {
		c.w.Fatal(err)
	}
}

// act names what happens from now on.
func (c *client) act(name string) {
	c.w.Helper()
	c.tell(load.Command{Act: name, TransferMillis: 1500})
}

// finish ends the load and fails the test if anything has failed.
func (c *client) finish() {
	c.w.Helper()
	c.tell(load.Command{Stop: true})
	c.w.await("the final report", func() bool { return c.load.Last().Final }, c.process)
	if err := c.load.CloseCommands(); err != nil {
		c.w.Error(err)
	}
	r := c.load.Last()
	for _, a := range r.Acts {
		requests, failed := a.Totals()
		c.w.Logf("%s: %d requests through HAProxy, %d failed", a.Name, requests, failed)
		if requests == 0 || failed > 0 {
			c.w.Errorf("%s: %d requests, %d failed", a.Name, requests, failed)
		}
	}
	for _, f := range r.Failures {
		c.w.Errorf("failed: %+v", f)
	}
}

// Rollouts, drains and restarts of agents lose nothing for those who come by an
// external balancer, with policy Cluster and with policy Local.
func TestNothingIsLostThroughHAProxy(t *testing.T) {
	w := newWorld(t)
	w.startHAProxy()
	c := w.startClient()
	nodes := w.lab.Nodes

	c.act("rolling update")
	for _, n := range nodes {
		w.replacePod(n)
	}

	c.act("node drained by hand")
	w.command(nodes[0], "drain", "node", "--for", "1h", "--reason", "test", "--state-dir", w.stateDir(nodes[0]))
	w.awaitStatus("ebb drain node", serviceCluster, nodes[0], "DOWN")
	w.command(nodes[0], "undrain", "node", "--state-dir", w.stateDir(nodes[0]))
	w.awaitStatus("ebb undrain node", serviceCluster, nodes[0], "UP")

	c.act("node removed by the autoscaler")
	w.publishNode(nodes[1], autoscalerTaint)
	w.awaitStatus("taint", serviceCluster, nodes[1], "DOWN")
	w.evict(nodes[1])
	w.startPod(nodes[1])
	w.publishNode(nodes[1], "")
	w.publish()
	w.awaitStatus("taint removed", serviceCluster, nodes[1], "UP")
	w.awaitStatus("pod ready", serviceIn, nodes[1], "UP")

	c.act("agents killed")
	w.restartAgents()
	c.finish()
}

// replacePod ends the only pod of a node before there is another one.
func (w *world) replacePod(n *lab.Node) {
	w.Helper()
	w.evict(n)
	w.startPod(n)
	w.publish()
	w.awaitStatus("pod ready", serviceIn, n, "UP")
}

// evict ends the only pod of a node, and sees the node leave the rotation of the
// service that looks for local pods.
func (w *world) evict(n *lab.Node) {
	w.Helper()
	left := make(chan struct{})
	go func() {
		defer close(left)
		w.awaitStatus("pod terminates", serviceIn, n, "DOWN")
	}()
	w.endPod(n)
	<-left
}

// restartAgents kills and replaces every agent; HAProxy must not notice.
func (w *world) restartAgents() {
	w.Helper()
	before, err := w.servers()
	if err != nil {
		w.Fatal(err)
	}
	for _, n := range w.lab.Nodes {
		if err := w.agents[n].Kill(); err != nil {
			w.Fatal(err)
		}
	}
	for _, n := range w.lab.Nodes {
		a := w.startAgent(n)
		w.await("the next agent of "+n.Name(), func() bool { return strings.Contains(a.out.String(), "msg=synced") }, a)
	}
	after, err := w.servers()
	if err != nil {
		w.Fatal(err)
	}
	for key, s := range after {
		if s.downs != before[key].downs || s.status != "UP" {
			w.Errorf("%v left the rotation: %+v, before %+v", key, s, before[key])
		}
	}
}
