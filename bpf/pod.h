/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pods' links. Nothing is routed here: what the core decided is written, and
 * the stack takes the packet on as it does with any other of the pod.
 */
#ifndef EBB_POD_H
#define EBB_POD_H

#include "ctx_skb.h"
#include "icmp.h"

/* Only what a pod sends to itself would not come back from the stack. */
static __always_inline int pod_translate(struct __sk_buff *skb, struct packet *p, struct outcome *o,
					 enum verdict *v)
{
	bool hairpin = o->flow->flags & FLOW_HAIRPIN;

	count_packet(o, *v, tc_len(skb, p));
	if (hairpin) {
		*v = o->flow->flags & FLOW_REVERSE ? VERDICT_REPLY_HAIRPIN : VERDICT_HAIRPIN;
		if (p->l2) /* there is one on all such devices */
			eth_turn(p->l2);
	}
	if (tc_rewrite(skb, p, o->flow, false)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	return hairpin ? bpf_redirect(skb->ifindex, 0) : TC_NEXT;
}

/* Beside tc_handle(), because with both ways in one function clang takes more stack for each. */
static __always_inline int pod_handle(struct __sk_buff *skb, enum hook hook)
{
	int action = TC_NEXT;
	struct outcome o;
	struct packet p;
	enum verdict v;
	int rare;

	core_init(&o);
	rare = tc_receive(skb, hook, &p, &v);
	if (rare != RARE_NONE)
		return rare;
	if (v == VERDICT_NONE) {
		v = hook == HOOK_POD_EGRESS ? core_egress(&p, &o, hook)
					    : core_ingress(&p, &o, hook);
		if (core_translates(&o, v))
			action = pod_translate(skb, &p, &o, &v);
		else if (verdict_refuses(v))
			action = tc_refuse(skb, &p, &o, &v);
		else if (!verdict_passes(v))
			action = TC_DROP;
	} else if (v == VERDICT_NOT_L4 && hook == HOOK_POD_INGRESS) {
		v = stray_verdict(skb);
		action = tc_stray(skb, &p, &o, &v);
	}
	count_verdict(hook, v);
	return action;
}

#endif
