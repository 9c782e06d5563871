/* The XDP program of one interface: which frames go to the data plane, which to the kernel, and which
 * end here. The table of decisions is in README.md. It fails closed: what would be steered is dropped
 * where no AF_XDP socket takes it. */
#include "maps.h"
#include "parse.h"

static __always_inline void count(enum steer_counter counter)
{
	__u32 key = counter;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += 1; /* of this CPU alone */
}

static __always_inline bool is_protected(__be32 address)
{
	struct steer_prefix key = { .length = 32, .address = address };

	return bpf_map_lookup_elem(&protected, &key);
}

static __always_inline bool is_active(void)
{
	__u32 zero = 0;
	const __u32 *value = bpf_map_lookup_elem(&role, &zero);

	return value && *value;
}

static __always_inline enum steer_counter judge_arp(const void *packet, const void *end, bool active)
{
	const struct arp_ipv4 *arp = packet;
	const __u8 *kind;
	__be32 target;

	if ((const void *)(arp + 1) > end)
		return STEER_ARP_TRUNCATED;
	if (!is_arp_request(arp))
		return STEER_ARP_OTHER;
	target = arp->target_address;
	kind = bpf_map_lookup_elem(&addresses, &target);
	if (!kind || *kind != STEER_ADDRESS_VIRTUAL)
		return STEER_ARP_OTHER;
	return active ? STEER_STEERED_ARP : STEER_STANDBY_ARP;
}

/* A packet for a virtual address, on the active node. A header that is wrong further on is the data
 * plane's to judge, because it has a name for each fault. */
static __always_inline enum steer_counter judge_virtual(const struct iphdr *ip, const void *end)
{
	switch (ip->protocol) {
	case IPPROTO_ESP:
		return is_fragment(ip) ? STEER_STEERED_FRAGMENT : STEER_STEERED_ESP;
	case IPPROTO_ICMP:
		return is_fragment(ip) ? STEER_STEERED_FRAGMENT : STEER_STEERED_ICMP;
	case IPPROTO_UDP:
		if (is_fragment(ip))
			return STEER_STEERED_FRAGMENT;
		switch (udp_destination_port(ip, end)) {
		case -1:
			return STEER_STEERED_MALFORMED;
		case STEER_PORT_IKE:
			return STEER_STEERED_IKE;
		case STEER_PORT_UDP_ENCAP:
			return STEER_STEERED_UDP_ENCAP;
		}
	}
	return STEER_VIRTUAL_UNHANDLED;
}

static __always_inline enum steer_counter judge_ipv4(const void *packet, const void *end, bool group,
						     bool active, const struct steer_settings *config)
{
	const struct iphdr *ip = packet;
	__be32 source, destination;
	const __u8 *kind;
	__u32 host_order;

	if ((const void *)(ip + 1) > end)
		return STEER_IPV4_TRUNCATED;
	source = ip->saddr;
	destination = ip->daddr;
	host_order = bpf_ntohl(destination);
	kind = bpf_map_lookup_elem(&addresses, &destination);

	/* Exempt from steering and from failing closed, also under a policy for 0.0.0.0/0. */
	if (kind && *kind == STEER_ADDRESS_OWN)
		return STEER_EXEMPT_OWN_ADDRESS;
	if ((host_order & 0xffff0000) == 0xa9fe0000) /* 169.254.0.0/16 */
		return STEER_EXEMPT_LINK_LOCAL;
	if ((host_order & 0xf0000000) == 0xe0000000) /* 224.0.0.0/4 */
		return STEER_EXEMPT_MULTICAST;
	if (host_order == 0xffffffff)
		return STEER_EXEMPT_BROADCAST;

	if (kind) { /* virtual */
		if (group)
			return STEER_LINK_BROADCAST;
		return active ? judge_virtual(ip, end) : STEER_STANDBY_VIRTUAL_ADDRESS;
	}

	/* Inside: to be sealed. Outside: in clear from where only ESP may come from. */
	if (is_protected(config->side == STEER_SIDE_INSIDE ? destination : source)) {
		if (group)
			return STEER_LINK_BROADCAST;
		if (!active)
			return STEER_STANDBY_PROTECTED;
		return config->side == STEER_SIDE_INSIDE ? STEER_STEERED_TO_PROTECTED :
							   STEER_STEERED_FROM_PROTECTED;
	}
	return STEER_UNPROTECTED;
}

/* Whom a frame is for. */
enum receiver { OTHER_HOST, THIS_INTERFACE, VIRTUAL_MAC, GROUP };

static __always_inline enum receiver receiver(const struct ethhdr *eth, const struct steer_settings *config)
{
	if (is_group_mac(eth->h_dest))
		return GROUP;
	if (same_mac(eth->h_dest, config->own_mac))
		return THIS_INTERFACE;
	if (config->has_virtual_mac && same_mac(eth->h_dest, config->virtual_mac))
		return VIRTUAL_MAC;
	return OTHER_HOST;
}

static __always_inline enum steer_counter judge(const struct ethhdr *eth, const void *end, enum receiver to,
						bool active, const struct steer_settings *config)
{
	const void *packet = eth + 1;
	__be16 ethertype = eth->h_proto;

	if (is_vlan(ethertype)) {
		/* VLAN identifier 0 is a priority tag: the kernel takes the frame as one without a tag, so
		 * it is judged as such. */
		const struct vlan_tag *tag = packet;

		if ((const void *)(tag + 1) > end || tag->control & bpf_htons(VLAN_ID_MASK))
			return STEER_VLAN;
		packet = tag + 1;
		ethertype = tag->ethertype;
		if (is_vlan(ethertype)) {
			tag = packet;
			if ((const void *)(tag + 1) > end || tag->control & bpf_htons(VLAN_ID_MASK))
				return STEER_VLAN;
			/* Nobody needs two of them, and something could hide behind them. */
			return STEER_VLAN_NESTED;
		}
	}
	if (ethertype == bpf_htons(ETH_P_ARP))
		return judge_arp(packet, end, active);
	if (ethertype == bpf_htons(ETH_P_IP))
		return judge_ipv4(packet, end, to == GROUP, active, config);
	return STEER_NOT_IPV4;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	const void *end = (void *)(long)ctx->data_end;
	const struct steer_settings *config;
	enum steer_counter verdict;
	enum receiver to;
	bool active;
	__u32 zero = 0;

	config = bpf_map_lookup_elem(&settings, &zero);
	if (!config || config->side == STEER_SIDE_UNSET) {
		count(STEER_NOT_CONFIGURED);
		return XDP_DROP;
	}
	if ((const void *)(eth + 1) > end) {
		count(STEER_FRAME_TOO_SHORT);
		return XDP_PASS;
	}
	to = receiver(eth, config);
	if (to == OTHER_HOST) {
		count(STEER_OTHER_HOST);
		return XDP_PASS;
	}
	active = is_active();
	verdict = judge(eth, end, to, active, config);

	if (verdict >= STEER_FIRST_DROPPED) {
		count(verdict);
		return XDP_DROP;
	}
	if (verdict >= STEER_FIRST_STEERED) {
		/* The flag is what the helper answers where the queue has no socket. */
		long action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP);

		count(action == XDP_REDIRECT ? verdict : STEER_FAIL_CLOSED);
		return action;
	}
	if (to == VIRTUAL_MAC) {
		/* The other node has it too, and that one is meant. */
		if (!active) {
			count(STEER_STANDBY_VIRTUAL_MAC);
			return XDP_DROP;
		}
		/* Otherwise the kernel takes it for another host's and drops it. */
		__builtin_memcpy(eth->h_dest, config->own_mac, ETH_ALEN);
		count(STEER_OWN_MAC_GIVEN);
	}
	count(verdict);
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0 OR MIT";
