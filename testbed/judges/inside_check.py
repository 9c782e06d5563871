#!/usr/bin/env python3
"""Judges a capture of an inside segment. Shares no code with the project.

    inside_check.py FILE.pcap --from NET --to NET

Prints one JSON object: how many IPv4 packets came from the one net to the other, and how many of them were
seen a second time, octet by octet. Hosts number their IPv4 packets (the identification field), also those of
a TCP retransmission, so that a second one is the work of whoever forwards: a packet that a gateway let in
twice. A host that has no connection to number (answers to a SYN, resets) writes 0; such TCP is left out.
"""
import argparse
import hashlib
import ipaddress
import json

from capture_check import network, records


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--to", dest="target", required=True)
    arguments = parser.parse_args()
    (source_net, source_mask), (target_net, target_mask) = network(arguments.source), network(arguments.target)
    counts = dict.fromkeys(("frames", "cut", "packets", "repeated", "left_out"), 0)
    example = ""
    seen = {}
    for frame, had in records(arguments.file):
        counts["frames"] += 1
        if frame[12:14] != b"\x08\x00" or len(frame) < 34:
            continue
        if int.from_bytes(frame[26:30], "big") & source_mask != source_net:
            continue
        if int.from_bytes(frame[30:34], "big") & target_mask != target_net:
            continue
        counts["cut"] += len(frame) < had
        counts["packets"] += 1
        if frame[23] == 6 and frame[18:20] == b"\0\0":
            counts["left_out"] += 1
            continue
        # Without the padding of a short Ethernet frame; TTL and header checksum belong to the way.
        packet = bytearray(frame[14:14 + int.from_bytes(frame[16:18], "big")])
        packet[8] = packet[10] = packet[11] = 0
        digest = hashlib.blake2b(packet, digest_size=16).digest()
        if digest in seen:
            counts["repeated"] += 1
            example = example or (f"(first: frame {counts['frames']} is frame {seen[digest]} again, "
                                  f"{ipaddress.ip_address(frame[26:30])} to {ipaddress.ip_address(frame[30:34])} "
                                  f"protocol {frame[23]})")
        else:
            seen[digest] = counts["frames"]
    print(json.dumps({**counts, "example": example}))


if __name__ == "__main__":
    main()
