//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Uplinks, with an skb: all that XDP leaves, or everything where there is no
 * XDP; and at egress the replies of this node's backends.
 */
#include "skb/handle.h"

SEC("tcx/ingress")
int ebb_tc_ingress(struct __sk_buff *skb)
{
	return tc_handle(skb, HOOK_TC_INGRESS);
}

SEC("tcx/egress")
int ebb_tc_egress(struct __sk_buff *skb)
{
	return tc_handle(skb, HOOK_TC_EGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
