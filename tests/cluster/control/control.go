// Package control runs a Kubernetes control plane in a namespace of a lab:
// etcd, the API server and the controllers that make EndpointSlices, Deployments
// and ServiceCIDRs work, each a real process. It knows flags, certificates and
// credentials; it knows nothing of nodes, pods or what is tested with them.
package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-lb/ebb/tests/cluster/binaries"
	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	port = 6443
	// startBound is how long a process may take until it answers.
	startBound = time.Minute
)

// controllers are those the tests need, no more.
var controllers = strings.Join([]string{
	"deployment-controller", "replicaset-controller", "endpointslice-controller",
	"service-cidr-controller", "namespace-controller", "garbage-collector-controller",
}, ",")

// Config describes a control plane.
type Config struct {
	Programs binaries.Set
	// Machine is where it runs. The machine must be reachable at Addrs.
	Machine *lab.NS
	Addrs   []netip.Addr
	// ServiceRanges are the ranges of Service addresses, one per family.
	ServiceRanges []netip.Prefix
	// Audited are the users whose requests are recorded: see Requests.
	Audited []string
	// Dir is a directory for state and logs.
	Dir string
}

// Plane is a control plane. Start, kill and restart its parts from one
// goroutine at a time. Everything ends with the lab.
type Plane struct {
	cfg   Config
	ca    *authority
	files files

	etcd, controllerManager, apiServer *lab.Process

	mu     sync.Mutex
	starts []start
}

// start is one start of the API server.
type start struct{ began, ready time.Time }

// files are what the processes are given by path.
type files struct {
	serving, admin, signing pair
	adminConfig, auditLog   string
}

// Start returns a control plane that answers.
func Start(ctx context.Context, cfg Config) (*Plane, error) {
	p := &Plane{cfg: cfg}
	for _, step := range []func(context.Context) error{
		p.writeFiles, p.startEtcd, p.StartAPIServer, p.startControllers,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Plane) writeFiles(context.Context) (err error) {
	if p.ca, err = newAuthority(p.cfg.Dir); err != nil {
		return err
	}
	f := &p.files
	loopback := netip.MustParseAddr("127.0.0.1")
	if f.serving, err = p.ca.server("kube-apiserver", slices.Concat(p.cfg.Addrs, p.own(), []netip.Addr{loopback})...); err != nil {
		return err
	}
	if f.admin, err = p.ca.client("admin", "system:masters"); err != nil {
		return err
	}
	if f.signing, err = p.ca.client("service-accounts"); err != nil {
		return err
	}
	f.auditLog = p.path("audit.log")
	f.adminConfig = p.path("admin.kubeconfig")
	if err := p.writeConfig(f.adminConfig, p.Server(), credentials{ClientCertificate: f.admin.cert, ClientKey: f.admin.key}); err != nil {
		return err
	}
	return os.WriteFile(p.path("audit.yaml"), []byte(auditPolicy(p.cfg.Audited)), 0o600)
}

// own are the addresses of the API server's own Service: the first of each range.
func (p *Plane) own() []netip.Addr {
	var all []netip.Addr
	for _, r := range p.cfg.ServiceRanges {
		all = append(all, r.Masked().Addr().Next())
	}
	return all
}

func (p *Plane) path(name string) string { return filepath.Join(p.cfg.Dir, name) }

// Server is the URL of the API server.
func (p *Plane) Server() string {
	return "https://" + netip.AddrPortFrom(p.cfg.Addrs[0], port).String()
}

func (p *Plane) startEtcd(ctx context.Context) (err error) {
	const listen = "http://127.0.0.1:2379"
	p.etcd, err = p.run("etcd", p.cfg.Programs.Etcd,
		"--data-dir", p.path("etcd"), "--listen-client-urls", listen, "--advertise-client-urls", listen,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "warn")
	if err != nil {
		return err
	}
	return p.await(ctx, p.etcd, "etcd", listen+"/health")
}

// StartAPIServer starts the API server and waits until it is ready.
func (p *Plane) StartAPIServer(ctx context.Context) (err error) {
	f, began := p.files, time.Now()
	var ranges []string
	for _, r := range p.cfg.ServiceRanges {
		ranges = append(ranges, r.String())
	}
	p.apiServer, err = p.run("kube-apiserver", p.cfg.Programs.APIServer,
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", fmt.Sprint("--secure-port=", port), "--advertise-address="+p.cfg.Addrs[0].String(),
		"--tls-cert-file="+f.serving.cert, "--tls-private-key-file="+f.serving.key, "--client-ca-file="+p.ca.certFile(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+f.signing.cert, "--service-account-signing-key-file="+f.signing.key,
		"--service-cluster-ip-range="+strings.Join(ranges, ","),
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
		"--audit-policy-file="+p.path("audit.yaml"), "--audit-log-path="+f.auditLog, "--audit-log-mode=blocking-strict",
		// A restart in the middle of a test should not wait for watches to end.
		"--shutdown-delay-duration=0s", "--profiling=false")
	if err != nil {
		return err
	}
	if err := p.await(ctx, p.apiServer, "kube-apiserver", p.Server()+"/readyz"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts = append(p.starts, start{began: began, ready: time.Now()})
	return nil
}

func (p *Plane) startControllers(context.Context) (err error) {
	p.controllerManager, err = p.run("kube-controller-manager", p.cfg.Programs.ControllerManager,
		"--kubeconfig="+p.files.adminConfig, "--controllers="+controllers, "--leader-elect=false",
		"--kube-api-qps=500", "--kube-api-burst=500", "--bind-address=127.0.0.1", "--cert-dir="+p.path("controller-manager"))
	return err
}

// KillAPIServer ends the API server as a crash would.
func (p *Plane) KillAPIServer() error { return p.apiServer.Kill() }

// Alive reports what has ended by itself.
func (p *Plane) Alive() error {
	var errs []error
	for _, one := range []struct {
		name string
		*lab.Process
	}{{"etcd", p.etcd}, {"kube-apiserver", p.apiServer}, {"kube-controller-manager", p.controllerManager}} {
		select {
		case <-one.Done():
			errs = append(errs, p.ended(one.name, one.Process))
		default:
		}
	}
	return errors.Join(errs...)
}
