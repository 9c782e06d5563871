/* The maps. Their names are an interface: bpftool users and the loader find them by name. */
#ifndef TANDEM_STEER_MAPS_H
#define TANDEM_STEER_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "counters.h"
#include "structs.h"

/* AF_XDP socket of each receive queue. The kernel takes a socket out when it is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, STEER_MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* One entry. Nothing passes the program before it is written. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_settings);
} settings SEC(".maps");

/* One entry: 1 where this node is active, 0 where it is standby. A map of its own, so that whoever decides the role
 * writes it with one system call and nobody who writes the settings can undo it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} role SEC(".maps");

/* Prefixes behind the tunnels. The value is 1 and has no meaning. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, STEER_MAX_PROTECTED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct steer_prefix);
	__type(value, __u8);
} protected SEC(".maps");

/* Our addresses: the kernel's own on any interface, and those that the data plane answers for. One map for both,
 * because a look-up is the dearest thing that the program does. Key in network byte order, value
 * STEER_ADDRESS_... */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_MAX_ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32);
	__type(value, __u8);
} addresses SEC(".maps");

/* By enum steer_counter, in frames. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEER_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

#endif
