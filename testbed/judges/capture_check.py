#!/usr/bin/env python3
"""Judges a capture of an outside segment. Shares no code with the project.

    capture_check.py FILE.pcap [--keys KEYS.json] [--protected NET,NET]... [--ignore-mac MAC]...
                     [--node MAC]... [--sample N] [--seed N]

Prints one JSON object: how many frames and ESP packets, how often a (SPI, destination, IV) or a
(SPI, destination, sequence number) was seen a second time, how many packets between protected
prefixes were in clear, and how many of N random ESP packets scapy opened with the keys.

Two nodes of one gateway send from the same address, each with its own MAC (--node, for each). A reign is
what one of them sent under one term, and the term is the upper 16 of the 64 bits of the explicit IV. Counted
are: a term that both used (shared_term); an SA whose numbers of a later term do not all lie above all
numbers of each earlier one, whenever they were seen (not_above); and a node that went on sending under its
old term after a later one had begun (late, allowed for what was in flight). `reigns` lists them.

KEYS.json: a list of {"spi": 4097, "source": "192.0.2.1", "destination": "198.51.100.1",
"transform": "aes128gcm16", "key": "hex of key and salt"}. The explicit IV is the 8 octets after the
ESP header (RFC 4106).
"""
import argparse
import ipaddress
import json
import random
import struct
import sys


def records(path):
    """Yields (frame, octets that it had) of a classic pcap file, without holding all of it."""
    with open(path, "rb", buffering=1 << 20) as file:
        header = file.read(24)
        if len(header) < 24:
            sys.exit(f"{path}: shorter than a pcap header")
        magic = header[:4]
        if magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
            order = "<"
        elif magic in (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d"):
            order = ">"
        else:
            sys.exit(f"{path}: no pcap file")
        if struct.unpack_from(order + "I", header, 20)[0] != 1:
            sys.exit(f"{path}: not Ethernet")
        head = struct.Struct(order + "IIII")
        while len(octets := file.read(16)) == 16:
            _, _, kept, had = head.unpack(octets)
            frame = file.read(kept)
            if len(frame) < kept:
                break
            yield frame, had


def network(text):
    net = ipaddress.ip_network(text)
    return int(net.network_address), int(net.netmask)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--keys")
    parser.add_argument("--protected", action="append", default=[])
    parser.add_argument("--ignore-mac", action="append", default=[])
    parser.add_argument("--node", action="append", default=[])
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()

    keys = json.load(open(arguments.keys)) if arguments.keys else []
    known = {(k["spi"], ipaddress.ip_address(k["destination"]).packed) for k in keys}
    protected = [tuple(network(net) for net in pair.split(",")) for pair in arguments.protected]
    ignored = {bytes.fromhex(mac.replace(":", "")) for mac in arguments.ignore_mac}
    nodes = {bytes.fromhex(mac.replace(":", "")) for mac in arguments.node}
    reigns = {}
    chance = random.Random(arguments.seed)

    counts = dict.fromkeys(
        ("frames", "cut", "ignored", "esp", "short_esp", "repeated_iv", "repeated_sequence", "clear",
         "unknown_spi", "shared_term", "not_above", "late", "other_ipv4", "other"), 0)
    examples = {}
    ivs, sequences = set(), set()
    sample = []
    per_spi = {}

    def blame(kind, text):
        counts[kind] += 1
        examples.setdefault(kind, f"(first: frame {counts['frames']}, {text})")

    for frame, had in records(arguments.file):
        counts["frames"] += 1
        if len(frame) < had:
            counts["cut"] += 1
        if frame[6:12] in ignored:
            counts["ignored"] += 1
            continue
        ethertype, start = frame[12:14], 14
        while ethertype in (b"\x81\x00", b"\x88\xa8"):
            ethertype, start = frame[start + 2:start + 4], start + 4
        if ethertype != b"\x08\x00" or len(frame) < start + 20:
            counts["other"] += 1
            continue
        protocol = frame[start + 9]
        source_octets, destination_octets = frame[start + 12:start + 16], frame[start + 16:start + 20]
        if protocol == 50:
            counts["esp"] += 1
            offset = start + (frame[start] & 15) * 4
            if len(frame) < offset + 16:
                counts["short_esp"] += 1
                continue
            spi, sequence = struct.unpack_from(">II", frame, offset)
            iv = frame[offset + 8:offset + 16]
            if (spi, destination_octets) not in known and known:
                blame("unknown_spi", f"SPI {spi:#x}")
            # Octets take a fraction of the memory of tuples: destination, SPI and IV; destination, SPI and sequence.
            name = destination_octets + frame[offset:offset + 4]
            number = name + frame[offset + 4:offset + 8]
            nonce = name + iv
            if nonce in ivs:
                blame("repeated_iv", f"SPI {spi:#x} IV {iv.hex()}")
            ivs.add(nonce)
            if number in sequences:
                blame("repeated_sequence", f"SPI {spi:#x} sequence {sequence}")
            sequences.add(number)
            if frame[6:12] in nodes:
                # By SA, then by term: for each node lowest number, highest number, packets, first frame, last frame.
                reign = reigns.setdefault(name, {}).setdefault(iv[0] << 8 | iv[1], {})
                seen = reign.setdefault(frame[6:12], [sequence, sequence, 0, counts["frames"], 0])
                seen[0], seen[1] = min(seen[0], sequence), max(seen[1], sequence)
                seen[2] += 1
                seen[4] = counts["frames"]
            entry = per_spi.setdefault(f"{spi:#x}", [0, sequence, sequence])
            entry[0] += 1
            entry[1], entry[2] = min(entry[1], sequence), max(entry[2], sequence)
            # A uniform sample of fixed size in one pass.
            if len(sample) < arguments.sample:
                sample.append(frame[start:])
            else:
                place = chance.randrange(counts["esp"])
                if place < arguments.sample:
                    sample[place] = frame[start:]
            continue
        counts["other_ipv4"] += 1
        source = int.from_bytes(source_octets, "big")
        destination = int.from_bytes(destination_octets, "big")
        for (net_a, mask_a), (net_b, mask_b) in protected:
            if (source & mask_a == net_a and destination & mask_b == net_b) or (
                    source & mask_b == net_b and destination & mask_a == net_a):
                blame("clear", f"{ipaddress.ip_address(source)} to {ipaddress.ip_address(destination)} protocol {protocol}")
                break

    listed = []
    for name, terms in reigns.items():
        spi = int.from_bytes(name[4:], "big")
        for term, by_node in sorted(terms.items()):
            if len(by_node) > 1:
                blame("shared_term", f"SPI {spi:#x} term {term} of both nodes")
            for mac, (low, high, packets, first, last) in by_node.items():
                listed.append({"spi": spi, "term": term, "node": mac.hex(":"), "packets": packets,
                               "lowest": low, "highest": high, "first_frame": first, "last_frame": last})
                for earlier, owners in terms.items():
                    for other, (_, top, _, _, end) in owners.items():
                        if earlier >= term:
                            continue
                        if low <= top:
                            blame("not_above", f"SPI {spi:#x} term {term} of {mac.hex(':')} begins at {low}, "
                                               f"term {earlier} of {other.hex(':')} went up to {top}")
                        if end > first:
                            blame("late", f"SPI {spi:#x} term {earlier} at frame {end}, term {term} from frame {first}")

    asked = opened = 0
    failures = []
    if keys and sample:
        from esp_oracle import Opener, inner_is_protected
        opener = Opener(keys)
        for packet in sample:
            asked += 1
            try:
                inner = opener.open(packet)
                if protected and not inner_is_protected(inner, protected):
                    raise ValueError(f"inner packet outside of the prefixes: {inner.summary()}")
                opened += 1
            except Exception as error:  # any reason at all counts as not opened
                failures.append(f"{type(error).__name__}: {error}")

    print(json.dumps({
        **counts, "examples": examples, "reigns": listed, "asked": asked, "opened": opened,
        "open_failures": failures[:5],
        "per_spi": {spi: {"packets": n, "lowest": low, "highest": high} for spi, (n, low, high) in per_spi.items()}
        if len(per_spi) <= 16 else {},
    }))


if __name__ == "__main__":
    main()
