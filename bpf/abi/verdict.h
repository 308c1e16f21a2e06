/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a verdict means for the packet: passed, rejected, routed. */
#ifndef EBB_ABI_VERDICT_H
#define EBB_ABI_VERDICT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/config.h"
#include "abi/types.h"

/* Dropped, and the sender is told, with an skb. */
static __always_inline bool verdict_refuses(enum verdict v)
{
	return v == VERDICT_NO_ENDPOINTS || v == VERDICT_NO_PORT || v == VERDICT_BACKEND_GONE ||
	       (v == VERDICT_NO_FLOW &&
		(cfg_unknown_flow == UNKNOWN_RESET || cfg_unknown_flow == UNKNOWN_PEER));
}

static __always_inline bool verdict_passes(enum verdict v)
{
	return v < VERDICT_TO_LOCAL || v == VERDICT_NOT_OURS;
}

/* By the entry of a flow. */
static __always_inline bool verdict_translates(enum verdict v)
{
	return v >= VERDICT_TO_LOCAL && v <= VERDICT_REPLY_REMOTE;
}

static __always_inline bool verdict_routes(enum verdict v)
{
	return v == VERDICT_TO_REMOTE || v == VERDICT_REPLY_REMOTE;
}

#endif
