//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells user space the clocks that flows are stamped with. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct clock_reading {
	__u64 jiffies;
	__u64 monotonic; /* ns */
};

SEC("syscall")
int ebb_clock(struct clock_reading *r)
{
	r->jiffies = bpf_jiffies64();
	r->monotonic = bpf_ktime_get_ns();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
