package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

const (
	dnsPort, dnsTarget = 53, 1053
	// recordEnv is the record of a DNS pod, as dnsmasq wants it.
	recordEnv = "EBB_CLUSTER_RECORD"
	zone      = "cluster.test"
)

// startDNS starts dnsmasq, which ends with the pod.
func startDNS() error {
	cmd := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
		// Without a change of credentials: that would make it outlive the pod.
		"--user=root", "--group=root",
		"--pid-file=", "--log-facility=-", fmt.Sprint("--port=", dnsTarget), "--local=/"+zone+"/", "--host-record="+os.Getenv(recordEnv))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

// resolving is a cluster whose pods resolve names by a Service of DNS servers.
type resolving struct {
	*world
	dns, web *service
	name     string // of web
	conf     string // file: what a kubelet makes a pod's /etc/resolv.conf
	musl     string // file: a program with that library
}

func (w *world) serveDNS() *resolving {
	w.Helper()
	r := &resolving{world: w, web: w.service(nil)}
	r.name = r.web.name + "." + zone
	for name, node := range map[string]string{"dns-a": nodeA, "dns-b": nodeB} {
		p := podNamed(name, node, dns, readyPath)
		c := &p.Spec.Containers[0]
		c.Image = "lab/" + dns
		c.Env[0] = corev1.EnvVar{Name: podEnv, Value: dns}
		c.Env = append(c.Env, corev1.EnvVar{Name: recordEnv, Value: fmt.Sprintf("%s,%s,%s", r.name, r.web.cluster4, r.web.cluster6)})
		w.must(w.createPod(w.Context(), standing, p))
		w.Cleanup(func() {
			w.must(w.client.CoreV1().Pods(standing).Delete(afterwards(w.T), name, metav1.DeleteOptions{}))
		})
	}
	r.dns = w.service(func(s *corev1.Service) {
		s.Spec.Selector = map[string]string{appLabel: dns}
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "dns", Protocol: corev1.ProtocolUDP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsTarget)},
			{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsTarget)},
		}
	})
	r.conf = filepath.Join(w.TempDir(), "resolv.conf")
	w.must(os.WriteFile(r.conf, fmt.Appendf(nil, "nameserver %s\nsearch %s\n", r.dns.cluster4, zone), 0o644))
	r.musl = filepath.Join(w.TempDir(), "resolve")
	if out, err := exec.Command("musl-gcc", "-static", "-Wall", "-Werror", "-o", r.musl, "testdata/resolve.c").CombinedOutput(); err != nil {
		w.Fatalf("musl-gcc (Debian: musl-tools): %v\n%s", err, out)
	}
	return r
}

// right checks the answer of a resolver.
func (r *resolving) right(got []string) error {
	want := []string{r.web.cluster4.String(), r.web.cluster6.String()}
	slices.Sort(got)
	slices.Sort(want)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		return fmt.Errorf("%s is %v, want %v", r.name, got, want)
	}
	return nil
}

// byGo asks with Go's own resolver, by UDP or TCP.
func (r *resolving) byGo(ctx context.Context, ns *lab.NS, network string, server netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ns.Dial(ctx, network, netip.AddrPortFrom(server, dnsPort).String())
	}}
	got, err := resolver.LookupHost(ctx, r.name+".")
	if err != nil {
		return err
	}
	return r.right(got)
}

// byProgram asks as programs do, by the resolver of a C library. Its socket is one
// that is not connected in all versions.
func (r *resolving) byProgram(ctx context.Context, ns *lab.NS, program ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out suite.Output
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "sh", "-c",
		`mount --bind "$0" /etc/resolv.conf && exec "$@"`, r.conf}, append(program, r.web.name)...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := ns.Start(cmd)
	if err != nil {
		return err
	}
	<-p.Done()
	if p.Err() != nil {
		return fmt.Errorf("%s: %w\n%s", program[0], p.Err(), out.String())
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		addr, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		got = append(got, addr)
	}
	return r.right(got)
}

// resolves asks in all ways.
func (r *resolving) resolves(ctx context.Context, ns *lab.NS) error {
	var errs []error
	for _, network := range []string{"udp", "tcp"} {
		for _, server := range []netip.Addr{r.dns.cluster4, r.dns.cluster6} {
			if err := r.byGo(ctx, ns, network, server); err != nil {
				errs = append(errs, fmt.Errorf("%s by %s at %s: %w", ns.Name(), network, server, err))
			}
		}
	}
	for library, program := range map[string][]string{"glibc": {"getent", "ahosts"}, "musl": {r.musl}} {
		if err := r.byProgram(ctx, ns, program...); err != nil {
			errs = append(errs, fmt.Errorf("%s by %s: %w", ns.Name(), library, err))
		}
	}
	return errors.Join(errs...)
}

// From the name of a Service to a pod of it, as any program does it.
func TestPodsResolveAServiceAndReachIt(t *testing.T) {
	w := setup(t)
	r := w.serveDNS()
	for _, from := range w.origins() {
		w.must(await(t.Context(), patience, func() error { return r.resolves(t.Context(), from) }))
		for range enough {
			w.check("once it works", r.resolves(t.Context(), from))
			if t.Failed() {
				return
			}
		}
		for _, addr := range addrs(r.web.cluster4, r.web.cluster6) {
			w.must(answeredFrom(t.Context(), from, ask, netip.AddrPortFrom(addr, httpPort), []string{a1, a2, b1}, nil))
		}
	}
}
