#!/usr/bin/env python3
"""Prints scapy_packets.rs: packets that scapy made, for the tests to compare with.

    /usr/bin/python3 scapy_packets.py > scapy_packets.rs && rustfmt scapy_packets.rs
"""

from scapy.all import (
    ARP, ESP, ICMP, IP, TCP, UDP, Dot1Q, Ether, IPOption_NOP, IPOption_Router_Alert, Raw, fragment, raw,
)

A, B = "192.0.2.1", "198.51.100.7"
MAC_A, MAC_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
BROADCAST = "ff:ff:ff:ff:ff:ff"
DATA = bytes(range(200))


def syn(mss):
    # The NOP puts the value of the MSS at an odd place.
    options = [("NOP", None), ("MSS", mss), ("SAckOK", b""), ("Timestamp", (1, 0))]
    return IP(src=A, dst=B, id=7, flags="DF") / TCP(sport=40000, dport=443, seq=1000, flags="S", options=options)


def syn_even(mss):
    options = [("MSS", mss), ("NOP", None), ("WScale", 7)]
    return IP(src=A, dst=B, id=8) / TCP(sport=40001, dport=80, seq=9, flags="SA", ack=5, options=options)


ODD = IP(src=A, dst=B, id=0x1234, ttl=1, tos=0x28) / UDP(sport=33434, dport=33435) / Raw(DATA[:37])
LARGE = IP(src=A, dst=B, id=0x4321, flags="DF") / UDP(sport=5000, dport=5001) / Raw(DATA * 7)
CUT = IP(src=A, dst=B, id=0xbeef) / UDP(sport=1, dport=2) / Raw(DATA)
OPTIONS = IP(src=A, dst=B, id=3, options=[IPOption_Router_Alert(), IPOption_NOP()]) / ICMP(type=8, id=1, seq=2)


def error(icmp, about):
    # 548 octets of quote make 576 in all.
    return IP(src="203.0.113.1", dst=A, tos=0xc0, id=0, ttl=64) / icmp / Raw(raw(about)[:548])


PACKETS = {
    "ARP_REQUEST": (
        "A request, padded to 60 octets.",
        Ether(src=MAC_A, dst=BROADCAST) / ARP(op=1, hwsrc=MAC_A, psrc=A, pdst=B) / Raw(bytes(18)),
    ),
    "ARP_REPLY": (
        "Its answer.",
        Ether(src=MAC_B, dst=MAC_A) / ARP(op=2, hwsrc=MAC_B, psrc=B, hwdst=MAC_A, pdst=A),
    ),
    "ARP_ANNOUNCEMENT": (
        "An announcement of B.",
        Ether(src=MAC_B, dst=BROADCAST) / ARP(op=1, hwsrc=MAC_B, psrc=B, hwdst="00:00:00:00:00:00", pdst=B),
    ),
    "VLAN_UDP": (
        "UDP in VLAN 42, priority 5.",
        Ether(src=MAC_A, dst=MAC_B) / Dot1Q(vlan=42, prio=5) / ODD,
    ),
    "UDP_IKE": ("UDP with even data.", IP(src=A, dst=B) / UDP(sport=500, dport=500) / Raw(DATA[:28])),
    "ESP_PACKET": ("ESP.", IP(src=A, dst=B, proto=50) / ESP(spi=0x80100005, seq=77, data=DATA[:40])),
    "ECHO_REQUEST": (
        "An echo request.",
        IP(src=A, dst=B, id=99, ttl=3, flags="DF", tos=0x10) / ICMP(type=8, id=0x2a, seq=3) / Raw(DATA[:57]),
    ),
    "ECHO_REPLY": (
        "Its reply.",
        IP(src=B, dst=A, id=99, ttl=64, flags="DF", tos=0x10) / ICMP(type=0, id=0x2a, seq=3) / Raw(DATA[:57]),
    ),
    "ECHO_WITH_OPTIONS": ("An echo request with router alert.", OPTIONS),
    "TTL_ONE": ("A packet whose TTL ends here.", ODD),
    "TIME_EXCEEDED": ("The error about it.", error(ICMP(type=11, code=0), ODD)),
    "TOO_LONG": ("A packet of 1,428 octets with DF.", LARGE),
    "FRAGMENTATION_NEEDED": ("The error about it.", error(ICMP(type=3, code=4, nexthopmtu=1390), LARGE)),
    "SYN_1460": ("A SYN with an MSS of 1,460 at an odd place.", syn(1460)),
    "SYN_1310": ("The same, clamped to 1,310.", syn(1310)),
    "SYN_ACK_9000": ("A SYN with an MSS of 9,000 at an even place.", syn_even(9000)),
    "SYN_ACK_1310": ("The same, clamped to 1,310.", syn_even(1310)),
    "TO_CUT": ("A packet of 228 octets.", CUT),
}


def constant(name, text, packet):
    octets = ", ".join(f"0x{octet:02x}" for octet in raw(packet))
    return f"/// {text}\npub const {name}: &[u8] = &[{octets}];"


print("//! Packets that scapy made; `scapy_packets.py` prints this file.\n")
for name, (text, packet) in PACKETS.items():
    print(constant(name, text, packet))
pieces = ", ".join("&[" + ", ".join(f"0x{o:02x}" for o in raw(p)) + "]" for p in fragment(CUT, fragsize=80))
print(f"/// [`TO_CUT`] in fragments of at most 80 octets of payload.\npub const CUT: &[&[u8]] = &[{pieces}];")
