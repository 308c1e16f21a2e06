package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ebb-lb/ebb/tests/lab"
)

// manifest is what users give agents their rights with.
const manifest = "../../deploy/manifests/rbac.yaml"

// agentUser is who agents are to the API server.
const agentUser = "system:serviceaccount:" + agentNamespace + ":" + agentAccount

// zoneOf is the zone a node is in.
var zoneOf = map[string]string{nodeA: "zone-1", nodeB: "zone-2"}

func (c *cluster) createNodes(ctx context.Context) error {
	for _, n := range c.nodes() {
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: n.Name(), Labels: map[string]string{
				corev1.LabelTopologyZone: zoneOf[n.Name()], corev1.LabelHostname: n.Name(),
			}},
			Spec: corev1.NodeSpec{PodCIDRs: []string{n.PodCIDR4.String(), n.PodCIDR6.String()}, PodCIDR: n.PodCIDR4.String()},
		}
		created, err := c.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		created.Status = nodeStatus(n)
		if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func nodeStatus(n *lab.Node) corev1.NodeStatus {
	s := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	for _, a := range []netip.Addr{n.Addr4, n.Addr6} {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return s
}

// grantAccess gives agents the rights that users are told to give them.
func (c *cluster) grantAccess(ctx context.Context) error {
	objects, err := readManifest(manifest)
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	for _, o := range objects {
		if err := c.create(ctx, o); err != nil {
			return err
		}
	}
	if c.direct, err = c.plane.ServiceAccount(ctx, c.client, agentNamespace, agentAccount, c.plane.Server()); err != nil {
		return err
	}
	indirect := "https://" + netip.AddrPortFrom(c.lab.Node(machine).Addr4, faultPort).String()
	c.indirect, err = c.plane.ServiceAccount(ctx, c.client, agentNamespace, agentAccount, indirect)
	return err
}

// readManifest returns the objects of a file of YAML documents.
func readManifest(file string) ([]runtime.Object, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var objects []runtime.Object
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func (c *cluster) create(ctx context.Context, o runtime.Object) (err error) {
	opts := metav1.CreateOptions{}
	switch o := o.(type) {
	case *corev1.ServiceAccount:
		_, err = c.client.CoreV1().ServiceAccounts(o.Namespace).Create(ctx, o, opts)
	case *rbacv1.ClusterRole:
		_, err = c.client.RbacV1().ClusterRoles().Create(ctx, o, opts)
	case *rbacv1.ClusterRoleBinding:
		_, err = c.client.RbacV1().ClusterRoleBindings().Create(ctx, o, opts)
	default:
		err = fmt.Errorf("do not know how to create a %T", o)
	}
	return err
}

func netParse(p netip.Prefix) (net.IP, *net.IPNet, error) { return net.ParseCIDR(p.String()) }
