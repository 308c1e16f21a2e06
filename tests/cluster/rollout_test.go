package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	replicas = 3
	// rolloutBound is how long replacing all pods may take.
	rolloutBound = 2 * time.Minute
	// preStopSeconds is longer than it takes to tell the nodes that a pod ends, and longer
	// than a transfer.
	preStopSeconds = 2
)

// style is how pods end, and how a Deployment replaces them.
type style struct {
	kind               string // of pod
	preStop            int64  // seconds; 0: none
	surge, unavailable intstr.IntOrString
}

// deployment is a Deployment with a service that is under load.
type deployment struct {
	w    *world
	name string
	svc  *service
	load *client
}

func (w *world) deploy(s style) *deployment {
	w.Helper()
	d := &deployment{w: w}
	d.svc = w.service(func(svc *corev1.Service) {
		loadBalancer(svc)
		svc.Spec.Selector = map[string]string{appLabel: svc.Name}
	})
	d.name = d.svc.name
	d.svc.ingress(ingress(corev1.LoadBalancerIPModeVIP, d.svc.lb4, d.svc.lb6))
	_, err := w.client.AppsV1().Deployments(standing).Create(w.Context(), s.deployment(d.name), metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		background := metav1.DeletePropagationBackground
		w.must(w.client.AppsV1().Deployments(standing).Delete(afterwards(w.T), d.name, metav1.DeleteOptions{PropagationPolicy: &background}))
	})
	d.awaitRolledOut()
	w.leadsTo("before the rollout", httpPort, addrs(d.svc.lb4, d.svc.lb6), d.pods()...)
	return d
}

// startLoad begins load of all kinds on the service.
func (d *deployment) startLoad() {
	d.w.Helper()
	http, udp := d.targets()
	d.startLoadOn(http, udp)
}

func (d *deployment) startLoadOn(http, udp []string) {
	d.w.Helper()
	var err error
	d.load, err = startClient(d.w.lab.Client, http, udp, d.name)
	d.w.must(err)
	d.goesOn()
}

// targets are the addresses of the service as its client knows them.
func (d *deployment) targets() (http, udp []string) {
	d.w.Helper()
	http, udp = targets(addrs(d.svc.lb4, d.svc.lb6), httpPort, echoPort)
	ports := d.svc.get().Spec.Ports
	http2, udp2 := targets(addrs(d.w.entry.Addr4, d.w.entry.Addr6), uint16(ports[0].NodePort), uint16(ports[1].NodePort))
	return append(http, http2...), append(udp, udp2...)
}

// goesOn waits until more of everything has succeeded.
func (d *deployment) goesOn() {
	d.w.Helper()
	d.w.must(d.load.awaitMore(d.w.Context(), d.name, fewest))
}

func (s style) deployment(name string) *appsv1.Deployment {
	spec := podSpec(s.kind, readyPath)
	grace := int64(podBound.Seconds()) + 5
	spec.TerminationGracePeriodSeconds = &grace
	if s.preStop > 0 {
		spec.Containers[0].Lifecycle = &corev1.Lifecycle{
			PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: s.preStop}},
		}
	}
	n, labels := int32(replicas), map[string]string{appLabel: name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s.surge, MaxUnavailable: &s.unavailable},
			},
		},
	}
}

// roll changes the template, so that every pod is replaced.
func (d *deployment) roll() {
	d.w.Helper()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"rolled":%q}}}}}`, time.Now())
	_, err := d.w.client.AppsV1().Deployments(standing).Patch(d.w.Context(), d.name,
		types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	d.w.must(err)
}

// awaitRolledOut waits until all pods are of the newest template and ready, and
// no other is left.
func (d *deployment) awaitRolledOut() {
	d.w.Helper()
	d.w.must(await(d.w.Context(), rolloutBound, func() error {
		now, err := d.w.client.AppsV1().Deployments(standing).Get(d.w.Context(), d.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := now.Status
		if s.ObservedGeneration < now.Generation || s.UpdatedReplicas != replicas || s.AvailableReplicas != replicas {
			return fmt.Errorf("%s is not rolled out: %+v", d.name, s)
		}
		if pods := d.pods(); len(pods) != replicas {
			return fmt.Errorf("pods %v, want %d", pods, replicas)
		}
		return nil
	}))
}

// pods are those there are, whatever state they are in.
func (d *deployment) pods() []string {
	d.w.Helper()
	list, err := d.w.client.CoreV1().Pods(standing).List(d.w.Context(), metav1.ListOptions{LabelSelector: appLabel + "=" + d.name})
	d.w.must(err)
	var names []string
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	return names
}

// awaitMiddle waits until a rollout has come so far that a pod of the given
// ones is ending.
func (d *deployment) awaitMiddle() {
	d.w.Helper()
	d.w.must(await(d.w.Context(), rolloutBound, func() error {
		list, err := d.w.client.CoreV1().Pods(standing).List(d.w.Context(), metav1.ListOptions{LabelSelector: appLabel + "=" + d.name})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if p.DeletionTimestamp != nil {
				return nil
			}
		}
		return errors.New("no pod is ending")
	}))
}

// finish ends the load; nothing of it may have failed, and the new pods answer.
func (d *deployment) finish() {
	d.w.Helper()
	d.goesOn()
	r, err := d.load.finish(d.w.Context())
	d.w.must(err)
	for _, a := range r.Acts {
		n, failed := a.Totals()
		d.w.Logf("%d operations on the service, %d failed", n, failed)
	}
	for _, f := range r.Failures {
		d.w.Errorf("failed: %+v", f)
	}
	d.w.leadsTo("after the rollout", httpPort, addrs(d.svc.lb4, d.svc.lb6), d.pods()...)
}

var (
	none, one = intstr.FromInt32(0), intstr.FromInt32(1)
	half, all = intstr.FromString("50%"), intstr.FromString("100%")
)

func TestARolloutLosesNothing(t *testing.T) {
	tests := []struct {
		name string
		style
	}{
		{"patient pods, one more at a time", style{kind: patient, surge: one, unavailable: none}},
		{"patient pods, one less at a time", style{kind: patient, surge: none, unavailable: one}},
		{"patient pods, all at once", style{kind: patient, surge: all, unavailable: none}},
		{"hasty pods with preStop, one more at a time", style{kind: hasty, preStop: preStopSeconds, surge: one, unavailable: none}},
		{"hasty pods with preStop, half of them less", style{kind: hasty, preStop: preStopSeconds, surge: half, unavailable: half}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			d := setup(t).deploy(tc.style)
			d.startLoad()
			d.roll()
			d.awaitRolledOut()
			d.finish()
		})
	}
}

func TestAnAgentKilledDuringARolloutIsNotMissed(t *testing.T) {
	w := setup(t)
	d := w.deploy(style{kind: patient, surge: one, unavailable: none})
	d.startLoad()
	d.roll()
	d.awaitMiddle()
	w.must(w.agents[nodeA].Kill())
	d.goesOn()
	w.newAgent(w.direct) // in its place
	d.awaitRolledOut()
	d.finish()
}

func TestAnAPIServerKilledDuringARolloutIsNotMissed(t *testing.T) {
	w := setup(t)
	d := w.deploy(style{kind: patient, surge: one, unavailable: none})
	d.startLoad()
	d.roll()
	d.awaitMiddle()
	requests := w.requests()
	w.must(w.plane.KillAPIServer())
	d.goesOn()
	w.must(w.plane.StartAPIServer(w.Context()))
	d.awaitRolledOut()
	w.everybodyBack(requests)
	d.finish()
}
