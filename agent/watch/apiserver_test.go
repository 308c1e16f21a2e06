package watch

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfigFor writes a kubeconfig file of a server.
func kubeconfigFor(t *testing.T, server string) string {
	t.Helper()
	cfg := api.NewConfig()
	cfg.Clusters["c"] = &api.Cluster{Server: server}
	cfg.AuthInfos["u"] = &api.AuthInfo{Token: "secret"}
	cfg.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "u"}
	cfg.CurrentContext = "x"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestServersAreURLsOrKubeconfigs(t *testing.T) {
	file := kubeconfigFor(t, "https://192.0.2.1:6443/")
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name    string
		servers []string
		want    []string
		err     string
	}{
		{"a URL", []string{"https://192.0.2.9:6443"}, []string{"https://192.0.2.9:6443"}, ""},
		{"the server of a kubeconfig", []string{file}, []string{"https://192.0.2.1:6443"}, ""},
		{"one server, named twice", []string{file, "https://192.0.2.1:6443"}, []string{"https://192.0.2.1:6443"}, ""},
		{"a file that is not there beside one that is", []string{missing, file}, []string{"https://192.0.2.1:6443"}, ""},
		{"only a file that is not there", []string{missing}, nil, "no API server is known: kubeconfig " + missing},
		{"no host", []string{"6443"}, nil, "API server 6443: no host"},
	}
	for _, tc := range tests {
		all, err := API{Servers: tc.servers}.servers()
		var got []string
		for _, u := range all {
			got = append(got, u.String())
		}
		if !slices.Equal(got, tc.want) || tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v, %v; want %v, %q", tc.name, got, err, tc.want, tc.err)
		}
	}
}

// TestTheNextServerIsAskedWhenOneIsAway also has the user of the kubeconfig at servers
// that it does not name.
func TestTheNextServerIsAskedWhenOneIsAway(t *testing.T) {
	var asked [2]atomic.Int32
	var servers []*httptest.Server
	for i := range asked {
		servers = append(servers, httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("asked by %q", r.Header.Get("Authorization"))
			}
			asked[i].Add(1)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"NodeList","apiVersion":"v1","items":[]}`))
		})))
		defer servers[i].Close()
	}
	client, err := Connect(API{Kubeconfig: kubeconfigFor(t, "https://192.0.2.1:1"), Servers: []string{servers[0].URL, servers[1].URL}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	listNodes(t, client)
	if a, b := asked[0].Load(), asked[1].Load(); a != 1 || b != 0 {
		t.Fatalf("asked %d and %d times, want the first one only", a, b)
	}
	servers[0].Close()
	listNodes(t, client)
	listNodes(t, client)
	if b := asked[1].Load(); b != 2 {
		t.Errorf("the second server was asked %d times, want 2", b)
	}
	servers[1].Close()
	if _, err := client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{}); err == nil || strings.Count(err.Error(), "refused") != 2 {
		t.Errorf("both away: %v; want the errors of both", err)
	}
}

func listNodes(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	if _, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

// TestAPodNeedsNoAddressFromTheKubelet: the one it gets is a Service's.
func TestAPodNeedsNoAddressFromTheKubelet(t *testing.T) {
	for _, name := range []string{"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	if _, err := (API{}).restConfig(); err == nil || !strings.Contains(err.Error(), "in-cluster") {
		t.Errorf("without an address: %v", err)
	}
	cfg, err := API{Servers: []string{"https://192.0.2.9:6443"}}.restConfig()
	if err != nil || cfg.Host != "https://192.0.2.9:6443" || cfg.BearerTokenFile != accountToken || cfg.CAFile != accountCA {
		t.Errorf("%+v, %v", cfg, err)
	}
}
