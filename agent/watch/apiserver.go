package watch

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// API says where the API server is and who asks it.
type API struct {
	// Kubeconfig names server and user; empty: the service account of the pod this
	// process runs in, at the address the kubelet gives to pods.
	Kubeconfig string
	// Servers are asked instead, in turn: URLs, and paths of kubeconfig files whose
	// server is taken and nothing else. The address in pods is that of a Service:
	// where the agent is what makes Services work, it does not lead anywhere yet.
	Servers []string
}

// The files of a pod's service account.
const (
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	accountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

func (a API) restConfig() (*rest.Config, error) {
	cfg, err := a.credentials()
	if err != nil || len(a.Servers) == 0 {
		return cfg, err
	}
	servers, err := a.servers()
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.APIPath = servers[0].String(), ""
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &failover{servers: servers, next: next} })
	return cfg, nil
}

func (a API) credentials() (*rest.Config, error) {
	switch {
	case a.Kubeconfig != "":
		cfg, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig %s: %w", a.Kubeconfig, err)
		}
		return cfg, nil
	case len(a.Servers) > 0:
		return &rest.Config{BearerTokenFile: accountToken, TLSClientConfig: rest.TLSClientConfig{CAFile: accountCA}}, nil
	}
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("in-cluster configuration: %w", err)
	}
	return cfg, nil
}

// servers returns those that can be found, each once. That a file is not there is
// an error only if nothing else names a server: which one there is depends on how
// the node was set up.
func (a API) servers() ([]*url.URL, error) {
	var all []*url.URL
	var errs []error
	for _, s := range a.Servers {
		u, err := serverURL(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.ContainsFunc(all, func(v *url.URL) bool { return v.Host == u.Host }) {
			all = append(all, u)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no API server is known: %w", errors.Join(errs...))
	}
	return all, nil
}

func serverURL(server string) (*url.URL, error) {
	if filepath.IsAbs(server) {
		cfg, err := clientcmd.LoadFromFile(server)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig %s: %w", server, err)
		}
		context := cfg.Contexts[cfg.CurrentContext]
		if context == nil || cfg.Clusters[context.Cluster] == nil {
			return nil, fmt.Errorf("kubeconfig %s names no server", server)
		}
		server = cfg.Clusters[context.Cluster].Server
	}
	u, err := url.Parse(strings.TrimSuffix(server, "/"))
	if err == nil && u.Host == "" {
		err = errors.New("no host")
	}
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", server, err)
	}
	return u, nil
}

// failover sends requests to one of several servers until it cannot be reached,
// then to the next one.
type failover struct {
	servers []*url.URL
	current atomic.Uint32
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (f *failover) RoundTrip(req *http.Request) (*http.Response, error) {
	var errs []error
	for range f.servers {
		n := f.current.Load()
		resp, err := f.next.RoundTrip(toServer(req, f.servers[n]))
		if err == nil {
			return resp, nil
		}
		errs = append(errs, err)
		f.current.CompareAndSwap(n, (n+1)%uint32(len(f.servers)))
		if req.Context().Err() != nil || req.Body != nil {
			break // whoever asks tries again
		}
	}
	return nil, errors.Join(errs...)
}

func toServer(req *http.Request, server *url.URL) *http.Request {
	if req.URL.Host == server.Host && req.URL.Scheme == server.Scheme {
		return req
	}
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host, req.Host = server.Scheme, server.Host, ""
	return req
}
