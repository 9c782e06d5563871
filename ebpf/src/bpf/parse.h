/* Headers, with every bound checked. */
#ifndef TANDEM_STEER_PARSE_H
#define TANDEM_STEER_PARSE_H

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* ARP for IPv4 over Ethernet (RFC 826). */
struct arp_ipv4 {
	__be16 hardware_type;
	__be16 protocol_type;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_address[4];
	__u8 target_mac[6];
	__be32 target_address;
} __attribute__((packed, aligned(2)));

#define ARP_HARDWARE_ETHERNET 1
#define ARP_REQUEST 1

/* 802.1Q tag, after the EtherType that announces it. */
struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

#define VLAN_ID_MASK 0x0fff
#define IPV4_FRAGMENT_MASK 0x3fff /* more fragments, offset */

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a;
	const __u16 *y = (const __u16 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/* Multicast or broadcast. */
static __always_inline bool is_group_mac(const __u8 *mac)
{
	return mac[0] & 1;
}

static __always_inline bool is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* A request for the address of an IPv4 host on this link, well-formed. */
static __always_inline bool is_arp_request(const struct arp_ipv4 *arp)
{
	return arp->hardware_type == bpf_htons(ARP_HARDWARE_ETHERNET) &&
	       arp->protocol_type == bpf_htons(ETH_P_IP) && arp->hardware_len == 6 &&
	       arp->protocol_len == 4 && arp->operation == bpf_htons(ARP_REQUEST);
}

static __always_inline bool is_fragment(const struct iphdr *ip)
{
	return ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK);
}

/* Destination port of the UDP packet that is no fragment, in host byte order; -1 where the packet
 * does not hold it. Port fields in the padding of a short frame do not count. */
static __always_inline int udp_destination_port(const struct iphdr *ip, const void *end)
{
	__u32 header_len = ip->ihl * 4;
	const __be16 *ports = (const void *)ip + header_len;

	if (ip->version != 4 || header_len < sizeof(*ip))
		return -1;
	if (bpf_ntohs(ip->tot_len) < header_len + 2 * sizeof(*ports))
		return -1;
	if ((const void *)(ports + 2) > end)
		return -1;
	return bpf_ntohs(ports[1]);
}

#endif
