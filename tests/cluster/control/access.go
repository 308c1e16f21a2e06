package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// tokenSeconds is how long a token of a service account is good for.
const tokenSeconds = 3600

type credentials = api.AuthInfo

// Admin returns the configuration of a client that may do everything. It
// connects from the machine of the control plane, wherever it is used.
func (p *Plane) Admin() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", p.files.adminConfig)
	if err != nil {
		return nil, err
	}
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return p.cfg.Machine.Dial(ctx, network, addr)
	}
	cfg.QPS, cfg.Burst = -1, 0 // tests are bounded otherwise
	return cfg, nil
}

// ServiceAccount writes a kubeconfig file by which a process on another machine is this
// service account, at the API server with the given URL, and returns its name.
func (p *Plane) ServiceAccount(ctx context.Context, admin kubernetes.Interface, namespace, name, server string) (string, error) {
	seconds := int64(tokenSeconds)
	token, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, name, err)
	}
	f, err := os.CreateTemp(p.cfg.Dir, namespace+"-"+name+"-*.kubeconfig")
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(f.Close(), p.writeConfig(f.Name(), server, credentials{Token: token.Status.Token}))
}

func (p *Plane) writeConfig(file, server string, who credentials) error {
	const name = "lab"
	cfg := api.NewConfig()
	cfg.Clusters[name] = &api.Cluster{Server: server, CertificateAuthority: p.ca.certFile()}
	cfg.AuthInfos[name] = &who
	cfg.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	cfg.CurrentContext = name
	return clientcmd.WriteToFile(*cfg, file)
}

// ServingPair returns the files of the API server's certificate and key, for
// who stands in front of it on the same machine, and those of its authority.
func (p *Plane) ServingPair() (cert, key, authority string) {
	return p.files.serving.cert, p.files.serving.key, p.ca.certFile()
}

// Request is what an audited user asked for.
type Request struct {
	User, Verb, Group, Resource string
	Code                        int32
	// Early requests came before the server was ready. It then forbids everything,
	// for it has not read yet who may do what.
	Early bool
}

// Requests returns the requests of audited users that were answered so far.
func (p *Plane) Requests() ([]Request, error) {
	f, err := os.Open(p.files.auditLog)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var requests []Request
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		requests = append(requests, Request{
			User: e.User.Username, Verb: e.Verb,
			Group: e.ObjectRef.APIGroup, Resource: e.ObjectRef.Resource, Code: e.ResponseStatus.Code,
			Early: p.starting(e.RequestReceivedTimestamp),
		})
	}
	return requests, lines.Err()
}

// auditEvent is the part of audit.k8s.io/v1 Event that matters here.
type auditEvent struct {
	Verb      string `json:"verb"`
	User      struct{ Username string }
	ObjectRef struct {
		Resource, APIGroup string
	}
	ResponseStatus           struct{ Code int32 }
	RequestReceivedTimestamp time.Time
}

// starting reports whether the API server was being started at that time.
func (p *Plane) starting(at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.starts, func(s start) bool { return at.After(s.began) && at.Before(s.ready) })
}

func auditPolicy(users []string) string {
	return fmt.Sprintf(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["%s"]
- level: None
`, strings.Join(users, `","`))
}
