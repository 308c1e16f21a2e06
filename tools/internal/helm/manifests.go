package helm

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// manifestsHead is what each generated manifest begins with.
const manifestsHead = "# Made from deploy/helm/ebb by \"make manifests\"; change the chart instead.\n"

// Manifests returns the plain manifests for a cluster set up by kubeadm, by the
// names of their files; the one in the folder "uninstall" takes ebb off the nodes.
func Manifests(ctx context.Context, dir string) (map[string]string, error) {
	kubeadm := Values{"kubeApi": Values{"nodeKubeconfig": "/etc/kubernetes/kubelet.conf"}}
	files, err := Render(ctx, dir, kubeadm)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for name, text := range files {
		if path.Ext(name) == ".yaml" {
			all[name] = plain(map[string]string{name: text})
		}
	}
	files, err = Render(ctx, dir, Values{"uninstall": true})
	if err != nil {
		return nil, err
	}
	const agent = "agent.yaml"
	if files[agent] == "" {
		return nil, fmt.Errorf("the chart has no %s", agent)
	}
	all[path.Join("uninstall", agent)] = plain(map[string]string{agent: files[agent]})
	return all, nil
}

// plain leaves out what only Helm's own objects have.
func plain(files map[string]string) string {
	var kept []string
	for line := range strings.Lines(Documents(files)) {
		field := strings.TrimSpace(line)
		if strings.HasPrefix(field, "helm.sh/chart:") || strings.HasPrefix(field, "app.kubernetes.io/managed-by:") {
			continue
		}
		kept = append(kept, line)
	}
	return manifestsHead + strings.Join(kept, "")
}
