package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	// retryEvery is how often a report is tried that the API server did not take.
	retryEvery = 100 * time.Millisecond
	// reportBound is how long one try may take.
	reportBound = 5 * time.Second
)

// reporter tells the API server how a pod is, as soon as that changes. What
// changes while the server is away is told as it then is.
type reporter struct {
	client kubernetes.Interface
	pod    *corev1.Pod
	wake   chan struct{}

	mu     sync.Mutex
	status corev1.PodStatus
}

func newReporter(client kubernetes.Interface, pod *corev1.Pod) *reporter {
	return &reporter{client: client, pod: pod, wake: make(chan struct{}, 1)}
}

// running tells that the pod has started, with these addresses.
func (r *reporter) running(addrs ...netip.Addr) {
	r.change(func(s *corev1.PodStatus) {
		s.Phase = corev1.PodRunning
		s.PodIP = addrs[0].String()
		for _, a := range addrs {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
		}
		s.Conditions = conditions(false)
	})
}

// ready tells whether the pod wants to be sent traffic.
func (r *reporter) ready(ready bool) {
	r.mu.Lock()
	same := len(r.status.Conditions) > 0 && r.status.Conditions[0].Status == truth(ready)
	r.mu.Unlock()
	if !same {
		r.change(func(s *corev1.PodStatus) { s.Conditions = conditions(ready) })
	}
}

func (r *reporter) change(by func(*corev1.PodStatus)) {
	r.mu.Lock()
	by(&r.status)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// conditions are those that controllers look at.
func conditions(ready bool) []corev1.PodCondition {
	now := metav1.Now()
	var cs []corev1.PodCondition
	for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		cs = append(cs, corev1.PodCondition{Type: t, Status: truth(ready), LastTransitionTime: now})
	}
	return cs
}

func truth(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// run reports until ctx is done.
func (r *reporter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for r.patch(ctx) != nil {
			if !pause(ctx, retryEvery) {
				return
			}
		}
	}
}

// patch tells the status as it is now.
func (r *reporter) patch(ctx context.Context) error {
	r.mu.Lock()
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": r.pod.UID}, // not a successor of the same name
		"status":   r.status,
	})
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, reportBound)
	defer cancel()
	_, err = r.client.CoreV1().Pods(r.pod.Namespace).Patch(ctx, r.pod.Name, types.StrategicMergePatchType, body,
		metav1.PatchOptions{}, "status")
	if final(err) {
		return nil // nobody is left to be told about
	}
	return err
}

// final reports whether trying again is of no use: the pod is gone, or
// another one.
func final(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

// remove has the API server forget the pod, which has ended. A pod that nobody has
// deleted is left.
func (r *reporter) remove(ctx context.Context) {
	now := int64(0)
	for {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, reportBound)
			defer cancel()
			return r.client.CoreV1().Pods(r.pod.Namespace).Delete(ctx, r.pod.Name, metav1.DeleteOptions{
				GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(r.pod.UID)),
			})
		}()
		if err == nil || final(err) || !pause(ctx, retryEvery) {
			return
		}
	}
}
