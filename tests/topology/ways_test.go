package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/content"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// Every way in: agents that find their uplinks themselves.

const (
	secondDev = "eth1"
	tunDev    = "tun0"
)

// The second network between client and node.
var (
	secondClient = prefixes("198.51.107.10/24", "2001:db8:107::10/64")
	secondNode   = prefixes("198.51.107.1/24", "2001:db8:107::1/64")
	tunClient    = prefixes("10.77.0.10/24", "fd00:77::10/64")
	tunNode      = prefixes("10.77.0.1/24", "fd00:77::1/64")
)

func prefixes(text ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range text {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// startFinder starts an agent that is not told its uplinks, and waits until it is ready.
func (w *world) startFinder(xdp string) *process {
	w.Helper()
	args := w.agentArgs()
	at := slices.Index(args, "--uplink")
	args = append(slices.Delete(args, at, at+2), "--source", "dir:"+w.manifests, "--health-responder", "off", "--xdp", xdp)
	p := w.run(args...)
	w.await("the agent to be ready", p, func() error { return w.healthy() })
	return p
}

// uplinks are the devices the agent takes for uplinks, and whether it serves them.
func (w *world) uplinks() map[string]bool {
	w.Helper()
	body, err := get(w.Context(), w.entry.NS, "http://"+metricsAddr+"/metrics")
	if err != nil {
		w.Fatal(err)
	}
	found := make(map[string]bool)
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, `ebb_uplink_served{device="`); ok {
			name, value, _ := strings.Cut(rest, `"} `)
			found[name] = strings.TrimSpace(value) == "1"
		}
	}
	return found
}

// awaitUplinks waits until exactly these are served.
func (w *world) awaitUplinks(names ...string) {
	w.Helper()
	var got map[string]bool
	w.poll(fmt.Sprintf("%v to be the uplinks", names), func() bool {
		got = w.uplinks()
		served := 0
		for _, name := range names {
			if got[name] {
				served++
			}
		}
		return served == len(names) && len(got) == served
	})
}

// who asks for the name of the pod behind the service, by TCP and UDP.
func (w *world) who(vip netip.Addr) (tcp, udp string, err error) {
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+netip.AddrPortFrom(vip, httpPort).String()+"/peer", nil)
	if err != nil {
		return "", "", err
	}
	resp, err := httpClient(w.client()).Do(req)
	if err != nil {
		return "", "", fmt.Errorf("tcp: %w", err)
	}
	_ = resp.Body.Close()
	conn, err := w.client().Dial(ctx, "udp", netip.AddrPortFrom(vip, echoPort).String())
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 100)
	var n int
	if _, err = conn.Write([]byte("who")); err == nil {
		n, err = conn.Read(buf)
	}
	if err != nil {
		return "", "", fmt.Errorf("udp: %w", err)
	}
	return resp.Header.Get(pod.Header), strings.TrimPrefix(string(buf[:n]), "who "), nil
}

// wantServedBy wants connections to vip to reach p.
func (w *world) wantServedBy(what string, p *lab.Pod, vip netip.Addr) {
	w.Helper()
	for range 3 {
		tcp, udp, err := w.who(vip)
		if err != nil || tcp != p.Name() || udp != p.Name() {
			w.Errorf("%s: tcp %q, udp %q, %v; want %s", what, tcp, udp, err, p.Name())
			return
		}
	}
}

// publishAlone makes p the only endpoint, and waits until it is.
func (w *world) publishAlone(p *lab.Pod) {
	w.Helper()
	w.publish(p)
	w.awaitAlone(p.Name())
}

// awaitAlone waits until nobody but name serves the virtual addresses.
func (w *world) awaitAlone(name string) {
	w.Helper()
	vip4, vip6 := lab.DefaultVIPs()
	// Others may be chosen as long as they are there: once is not enough.
	w.poll(name+" to be the only endpoint", func() bool {
		for i := range 8 {
			vip := []netip.Addr{vip4, vip6}[i%2]
			if tcp, udp, err := w.who(vip); err != nil || tcp != name || udp != name {
				return false
			}
		}
		return true
	})
}

// way is one of both families by which the client sends, or an address of its own.
type way struct {
	name string
	dev  string
	via  [2]netip.Addr
}

// In by one device and back by another, as the client's addresses have it.
func TestClientsComeInAndAreAnsweredByAnyUplink(t *testing.T) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.connectSecond()
			w.startFinder(xdp)
			w.awaitUplinks(lab.Uplink, secondDev)
			w.wantEveryWay()
		})
	}
}

func (w *world) connectSecond() {
	w.Helper()
	if err := w.lab.ConnectClient(w.entry, secondDev, secondClient, secondNode, lab.NativeXDPPeer()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) wantEveryWay() {
	w.Helper()
	router4, router6 := lab.RouterAddrs()
	client4, client6 := lab.ClientAddrs()
	ins := []way{
		{"the first", lab.Uplink, [2]netip.Addr{router4, router6}},
		{"the second", secondDev, [2]netip.Addr{secondNode[0].Addr(), secondNode[1].Addr()}},
	}
	backs := []way{
		{name: "the first", via: [2]netip.Addr{client4, client6}},
		{name: "the second", via: [2]netip.Addr{secondClient[0].Addr(), secondClient[1].Addr()}},
	}
	vip4, vip6 := lab.DefaultVIPs()
	for _, p := range []*lab.Pod{w.pods[0], w.pods[2]} {
		w.publishAlone(p)
		for _, in := range ins {
			for _, back := range backs {
				for i, vip := range []netip.Addr{vip4, vip6} {
					if err := w.lab.RouteClient(vip, in.dev, in.via[i], back.via[i]); err != nil {
						w.Fatal(err)
					}
					w.wantServedBy(fmt.Sprintf("%s on %s, in by %s, back by %s", vip, p.Node.Name(), in.name, back.name), p, vip)
				}
			}
		}
	}
}

// A device is an uplink from the time it has an address, until it has not.
func TestUplinksAreFollowedWhileTheyComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startFinder("native")
	w.awaitUplinks(lab.Uplink)
	if err := w.lab.ConnectClient(w.entry, secondDev, secondClient, nil, lab.NativeXDPPeer()); err != nil {
		w.Fatal(err)
	}
	w.entryIP("addr", "add", secondNode[0].String(), "dev", secondDev)
	w.awaitUplinks(lab.Uplink, secondDev)
	vip4, _ := lab.DefaultVIPs()
	if err := w.lab.RouteClient(vip4, secondDev, secondNode[0].Addr(), secondClient[0].Addr()); err != nil {
		w.Fatal(err)
	}
	w.publishAlone(w.pods[2])
	w.wantServedBy("by the new uplink", w.pods[2], vip4)
	w.entryIP("addr", "del", secondNode[0].String(), "dev", secondDev)
	w.awaitUplinks(lab.Uplink)
	w.entryIP("route", "add", "198.51.200.0/24", "via", "198.51.107.7", "dev", secondDev, "onlink")
	w.awaitUplinks(lab.Uplink, secondDev)
	w.entryIP("link", "del", secondDev)
	w.awaitUplinks(lab.Uplink)
	if err := w.healthy(); err != nil {
		w.Error(err)
	}
}

// entryIP runs ip on the entry node.
func (w *world) entryIP(args ...string) {
	w.Helper()
	p, err := w.entry.Start(exec.Command("ip", args...))
	if err != nil {
		w.Fatal(err)
	}
	<-p.Done()
	if p.Err() != nil {
		w.Fatalf("ip %v: %v", args, p.Err())
	}
}

// A client and a pod's node see no difference, except that nothing is Ethernet between
// client and node.
func TestADeviceWithoutEthernetIsAnUplink(t *testing.T) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("xdp "+xdp, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.connectTunnel()
			agent := w.startFinder(xdp)
			w.awaitUplinks(lab.Uplink, tunDev)
			client4, client6 := lab.ClientAddrs()
			vip4, vip6 := lab.DefaultVIPs()
			for _, p := range []*lab.Pod{w.pods[0], w.pods[2]} {
				w.publishAlone(p)
				for _, back := range [][2]netip.Addr{{tunClient[0].Addr(), tunClient[1].Addr()}, {client4, client6}} {
					for i, vip := range []netip.Addr{vip4, vip6} {
						if err := w.lab.RouteClient(vip, tunDev, netip.Addr{}, back[i]); err != nil {
							w.Fatal(err)
						}
						w.wantServedBy(fmt.Sprintf("%s on %s from %s", vip, p.Node.Name(), back[i]), p, vip)
						w.wantTransfer(vip)
					}
				}
				w.viaRouter(vip4, vip6, tunClient)
			}
			if strings.Contains(agent.out.String(), "following them failed") {
				t.Errorf("next hops without a MAC address cannot be followed:\n%s", agent.out)
			}
		})
	}
}

// viaRouter has the client send by the router, and be answered by the tunnel.
func (w *world) viaRouter(vip4, vip6 netip.Addr, from []netip.Prefix) {
	w.Helper()
	router4, router6 := lab.RouterAddrs()
	for i, vip := range []netip.Addr{vip4, vip6} {
		if err := w.lab.RouteClient(vip, lab.Uplink, []netip.Addr{router4, router6}[i], from[i].Addr()); err != nil {
			w.Fatal(err)
		}
		w.wantTransfer(vip)
	}
}

func (w *world) connectTunnel() {
	w.Helper()
	tun, err := w.lab.Tunnel(w.entry, tunDev, tunClient, tunNode)
	if errors.Is(err, lab.ErrNoTun) {
		w.Skipf("missing feature: %v", err)
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = tun.Close() })
}

// wantTransfer receives a megabyte.
func (w *world) wantTransfer(vip netip.Addr) {
	w.Helper()
	const seed, size = 7, 1 << 20
	url := fmt.Sprintf("http://%s/stream?bytes=%d&seed=%d", netip.AddrPortFrom(vip, httpPort), size, seed)
	resp, err := httpClient(w.client()).Get(url)
	if err != nil {
		w.Errorf("transfer: %v", err)
		return
	}
	defer resp.Body.Close()
	if n, err := io.Copy(content.NewVerifier(seed), resp.Body); err != nil || n != size {
		w.Errorf("transfer from %s: %d of %d bytes, %v", vip, n, size, err)
	}
}

// infiniBand is a link type whose packets ebb does not know.
const infiniBand = 32

func TestAnUplinkThatCannotBeServedIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.entry.Do(func() error {
		tun, err := lab.OpenTun("ib0", func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETLINK, infiniBand) })
		if err == nil {
			w.Cleanup(func() { _ = tun.Close() })
		}
		return err
	})
	if errors.Is(err, lab.ErrNoTun) {
		t.Skipf("missing feature: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.entryIP("addr", "add", tunNode[0].String(), "dev", "ib0")
	agent := w.startFinder("native")
	w.poll("the device to be named", func() bool { served, known := w.uplinks()["ib0"]; return known && !served })
	body, err := get(w.Context(), w.entry.NS, healthURL)
	if err != nil || !strings.Contains(body, `"unservedUplinks":["ib0: `) {
		t.Errorf("/healthz: %v: %s", err, body)
	}
	w.publishAlone(w.pods[2])
	w.entryIP("addr", "add", "10.77.1.1/24", "dev", lab.Uplink) // look again
	w.poll("the address to be seen", func() bool { return w.metric("ebb_attached") == 1 })
	if n := strings.Count(agent.out.String(), "device=ib0"); n != 1 {
		t.Errorf("named %d times, want once:\n%s", n, agent.out)
	}
}
