// SPDX-License-Identifier: Apache-2.0 OR MIT
// The XDP programs around the device under test of veth-forward: the generator's, one in front of the plain
// forwarder, one at the sink. Nothing here is shared with Tandem's own program.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} SOCKETS SEC(".maps");

// Frames by what they are; see Class in veth/bpf.rs.
enum class { CLASS_UDP, CLASS_ESP, CLASS_OTHER, CLASSES };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CLASSES);
    __type(key, __u32);
    __type(value, __u64);
} COUNTS SEC(".maps");

static __always_inline __u32 classify(struct xdp_md *context)
{
    void *data = (void *)(long)context->data;
    void *end = (void *)(long)context->data_end;
    struct ethhdr *ethernet = data;
    struct iphdr *ip = (void *)(ethernet + 1);

    if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
        return CLASS_OTHER;
    switch (ip->protocol) {
    case IPPROTO_UDP:
        return CLASS_UDP;
    case IPPROTO_ESP:
        return CLASS_ESP;
    default:
        return CLASS_OTHER;
    }
}

// In front of the plain forwarder: IPv4 into its socket, the rest (ARP) to the kernel.
SEC("xdp")
int to_socket(struct xdp_md *context)
{
    if (classify(context) == CLASS_OTHER)
        return XDP_PASS;
    return bpf_redirect_map(&SOCKETS, 0, XDP_DROP);
}

static __always_inline __u32 count(struct xdp_md *context)
{
    __u32 class = classify(context);
    __u64 *frames = bpf_map_lookup_elem(&COUNTS, &class);

    if (frames)
        *frames += 1;
    return class;
}

// Nanoseconds between two frames of the generator (0: none), when the next one is due, and whether all that are
// still to come shall be none. See Pace in veth/bpf.rs.
struct pace {
    __u64 gap;
    __u64 due;
    __u64 ended;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pace);
} PACE SEC(".maps");

// Waits until a frame is due. A generator that is late (its core was taken) catches up a batch and no more.
static __always_inline void wait(struct pace *pace)
{
    __u64 now = bpf_ktime_get_ns();

    for (int turn = 0; turn < 1000 && now < pace->due; turn++)
        now = bpf_ktime_get_ns();
    pace->due = (now < pace->due + 64 * pace->gap ? pace->due : now) + pace->gap;
}

// Run by the generator on frames of its own: out of the device they pretend to have come in by.
SEC("xdp")
int count_and_transmit(struct xdp_md *context)
{
    __u32 zero = 0;
    struct pace *pace = bpf_map_lookup_elem(&PACE, &zero);

    if (!pace || pace->ended)
        return XDP_DROP;
    if (pace->gap)
        wait(pace);
    count(context);
    return XDP_TX;
}

// At the sink: IPv4 ends here, the rest (ARP) goes to the kernel.
SEC("xdp")
int count_and_drop(struct xdp_md *context)
{
    return count(context) == CLASS_OTHER ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
