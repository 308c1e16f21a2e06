/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many packets a CPU may make itself: who sends much must not make the node send much. */
#ifndef EBB_FLOW_LIMIT_H
#define EBB_FLOW_LIMIT_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/config.h"

/* Answers that may come at once after a pause, as the kernel's own. */
#define ANSWER_BURST 50

/* When the next answer is due, if they came evenly; CLOCK_MONOTONIC ns. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} answer_due SEC(".maps");

/* Take the right to one answer. */
static __always_inline bool answer_allowed(void)
{
	__u64 now, *due;
	__u32 zero = 0;

	if (!cfg_answer_interval)
		return false;
	due = bpf_map_lookup_elem(&answer_due, &zero);
	if (!due)
		return false;
	now = bpf_ktime_get_ns();
	if (*due > now)
		return false;
	if (*due + ANSWER_BURST * cfg_answer_interval < now)
		*due = now - ANSWER_BURST * cfg_answer_interval;
	*due += cfg_answer_interval;
	return true;
}

#endif
