package kubelet

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Bind gives pods that have no node one, each node in turn, until ctx is done:
// it takes the place of a scheduler.
func Bind(ctx context.Context, client kubernetes.Interface, nodes []string, log *slog.Logger) error {
	informer := coreinformers.NewFilteredPodInformer(client, metav1.NamespaceAll, 0, nil,
		func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", "").String()
		})
	next := 0
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		pod, ok := obj.(*corev1.Pod)
		if !ok || pod.DeletionTimestamp != nil {
			return
		}
		next++
		bindTo(ctx, client, pod, nodes[next%len(nodes)], log)
	}})
	if err != nil {
		return fmt.Errorf("bind pods: %w", err)
	}
	informer.RunWithContext(ctx)
	return nil
}

// bindTo tries until the API server has taken it, or knows better.
func bindTo(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, node string, log *slog.Logger) {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	for {
		err := client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
		if err == nil || final(err) {
			return
		}
		log.Warn("bind pod", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		if !pause(ctx, retryEvery) {
			return
		}
	}
}
