//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pods' links: the node's ends of their devices. What a pod sends to a service
 * is translated as it arrives, what answers it as it leaves for the pod.
 */
#include "skb/handle.h"

SEC("tcx/ingress")
int ebb_pod_ingress(struct __sk_buff *skb)
{
	return tc_handle(skb, HOOK_POD_INGRESS);
}

SEC("tcx/egress")
int ebb_pod_egress(struct __sk_buff *skb)
{
	return tc_handle(skb, HOOK_POD_EGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
