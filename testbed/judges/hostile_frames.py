#!/usr/bin/env python3
"""Makes frames that a gateway must not believe, with valid keys where the lie lies deeper.

    hostile_frames.py --folder OUT --keys KEYS.json --spi N --to-mac MAC --from-mac MAC
                      --remote-host IP --local-host IP --other-remote IP --count N

KEYS.json as in capture_check.py; --spi names the SA of the attacked gateway that the frames use.
Writes one pcap for each kind and prints a JSON list: kind, file, frames, and the counters under which
they must be found ("counters": the sum over them is exactly "frames"; where more than one is named,
the first must not be 0; with "shared" some frames of honest hosts may be found there too). Every inner or clear payload holds HOSTILE, but those of the kind "valid".
"""
import argparse
import ipaddress
import json
import os
import random
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WINDOW_FAR = 1_000_000


def checksum(octets):
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source, destination, protocol, payload, ttl=64, flags=0, ident=0, total=None, version=0x45):
    length = 20 + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH4s4s", version, 0, length, ident, flags, ttl, protocol, 0, source, destination)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(source_port, destination_port, payload):
    # Checksum 0: none (RFC 768).
    return struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


class Maker:
    def __init__(self, arguments):
        key = next(k for k in json.load(open(arguments.keys))
                   if k["spi"] == arguments.spi)
        self.spi = key["spi"]
        self.source = ipaddress.ip_address(key["source"]).packed
        self.destination = ipaddress.ip_address(key["destination"]).packed
        material = bytes.fromhex(key["key"])
        self.gcm, self.salt = AESGCM(material[:-4]), material[-4:]
        self.remote = ipaddress.ip_address(arguments.remote_host).packed
        self.local = ipaddress.ip_address(arguments.local_host).packed
        self.other = ipaddress.ip_address(arguments.other_remote).packed
        mac = lambda text: bytes.fromhex(text.replace(":", ""))  # noqa: E731
        self.ethernet = mac(arguments.to_mac) + mac(arguments.from_mac)
        self.folder, self.count = arguments.folder, arguments.count
        self.sequence = WINDOW_FAR
        self.random = random.Random(7)
        self.kinds = []

    def inner(self, mark=b"HOSTILE!", source=None, destination=None, **more):
        payload = udp(6666, 6667, mark * 8)
        return ipv4(source or self.remote, destination or self.local, 17, payload, **more)

    def esp(self, inner, sequence=None, padding=None, next_header=4, spi=None):
        """ESP of an inner packet (RFC 4303, RFC 4106), sealed with the real key."""
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        if padding is None:
            length = -(len(inner) + 2) % 4
            padding = bytes(range(1, length + 1)) + bytes((length,))
        text = inner + padding + bytes((next_header,))
        head = struct.pack(">II", spi or self.spi, sequence)
        iv = struct.pack(">Q", self.random.getrandbits(64))
        return head + iv + self.gcm.encrypt(self.salt + iv, text, head)

    def outer(self, payload, **more):
        more.setdefault("source", self.source)
        return ipv4(more.pop("source"), self.destination, more.pop("protocol", 50), payload, **more)

    def write(self, kind, frames, counters, shared=False):
        path = os.path.join(self.folder, f"hostile-{kind}.pcap")
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
            for frame in frames:
                file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
        self.kinds.append({"kind": kind, "file": path, "frames": len(frames), "counters": counters,
                           "shared": shared})

    def ip(self, kind, packets, counters):
        self.write(kind, [self.ethernet + b"\x08\x00" + packet for packet in packets], counters)

    def make(self):
        n, outer, esp, inner = self.count, self.outer, self.esp, self.inner
        each = range(n)
        valid = [outer(esp(inner(b"WELCOME!"))) for _ in each]
        self.ip("valid", valid, ["decapsulated"])
        # A window covers at least 64 numbers (RFC 4303): the last ones are surely within it.
        self.ip("replayed", [valid[-1 - i % 64] for i in each], ["esp_replayed"])
        self.ip("too-old", [outer(esp(inner(), sequence=1 + i)) for i in each], ["esp_too_old"])

        def damaged(packet, i):
            packet = bytearray(packet)
            packet[-1 - i % 16] ^= 1 << (i % 8)
            return bytes(packet)

        self.ip("wrong-icv", [damaged(outer(esp(inner())), i) for i in each], ["esp_auth_failed"])

        def damaged_text(packet, i):
            packet = bytearray(packet)
            packet[20 + 16 + i % 40] ^= 1 << (i % 8)
            return bytes(packet)

        self.ip("wrong-text", [damaged_text(outer(esp(inner())), i) for i in each], ["esp_auth_failed"])
        self.ip("wrong-spi", [outer(esp(inner(), spi=0x0BAD_0000 + i % 50000)) for i in each], ["esp_no_sa"])
        self.ip("sequence-zero", [outer(esp(inner(), sequence=0)) for _ in each], ["esp_sequence_zero"])
        stranger = ipaddress.ip_address("192.0.2.99").packed
        self.ip("wrong-peer", [outer(esp(inner()), source=stranger) for _ in each], ["esp_wrong_peer"])

        def shortened(i):
            whole = esp(inner())
            # Header, IV, trailer and ICV need 36 octets at least with an aligned payload.
            length = i % 36 if i % 2 else len(whole) - 1 - i % 3
            return whole[:length] if length % 4 or length < 36 else whole[:length - 1]

        self.ip("truncated", [outer(shortened(i)) for i in each], ["esp_truncated"])

        def cut_frame(i):
            packet = outer(esp(inner()))
            return packet[:max(20, len(packet) - 1 - i % 60)]

        self.ip("cut-frame", [cut_frame(i) for i in each], ["ipv4_header_invalid", "frame_truncated"])

        def bad_padding(i):
            text = inner()
            length = -(len(text) + 2) % 4 + 4
            padding = bytearray(range(1, length + 1))
            if i % 3 == 0:
                padding[i % length] ^= 0x40
                return esp(text, padding=bytes(padding) + bytes((length,)))
            if i % 3 == 1:
                return esp(text, padding=bytes(length) + bytes((length,)))
            return esp(text, padding=bytes(padding) + b"\xff")  # longer than the packet

        self.ip("bad-padding", [outer(bad_padding(i)) for i in each], ["esp_bad_padding"])
        self.ip("next-header", [outer(esp(inner(), next_header=(6, 17, 41, 50, 0, 255)[i % 6])) for i in each],
                ["esp_next_header"])
        self.ip("dummy", [outer(esp(inner(), next_header=59)) for _ in each], ["esp_dummy"])

        def bad_inner(i):
            packet = bytearray(inner())
            if i % 3 == 0:
                packet[0] = 0x65  # version 6
            elif i % 3 == 1:
                packet[0] = 0x44  # header of 16 octets
            else:
                packet[2:4] = struct.pack(">H", len(packet) + 1 + i % 1000)
            return bytes(packet)

        self.ip("inner-invalid", [outer(esp(bad_inner(i))) for i in each], ["inner_invalid"])

        def outside_of_selectors(i):
            wrong = ipaddress.ip_address(0x08080000 + i % 65536).packed
            if i % 3 == 0:
                return inner(source=wrong)
            if i % 3 == 1:
                return inner(destination=wrong)
            return inner(source=self.other)  # of another tunnel's remote prefix

        self.ip("selectors", [outer(esp(outside_of_selectors(i))) for i in each], ["inner_selector_mismatch"])
        self.ip("outer-fragment", [outer(esp(inner()), flags=0x2000 if i % 2 else 0x0010, ident=i % 65536) for i in each],
                ["esp_fragment"])

        def bad_checksum(i):
            packet = bytearray(outer(esp(inner())))
            packet[10 + i % 2] ^= 1 << (i % 8)
            return bytes(packet)

        self.ip("outer-checksum", [bad_checksum(i) for i in each], ["ipv4_checksum_wrong"])

        # In clear from outside, from the remote prefixes to the local one.
        self.ip("clear", [ipv4(self.remote if i % 2 else self.other, self.local, 17, udp(6666, 6667, b"HOSTILE!" * 8))
                          for i in each], ["policy_clear_inbound"])

        octets = lambda low, high: self.random.randbytes(self.random.randint(low, high))  # noqa: E731
        garbage = lambda: octets(8, 200)  # noqa: E731
        slow = ["slow_path_full"]
        self.ip("garbage-esp", [outer(octets(0, 300)) for _ in each], ["esp_no_sa", "esp_truncated"])
        self.ip("garbage-ike", [outer(udp(i % 60000, 500, garbage()), protocol=17) for i in each],
                ["ike_no_daemon", *slow])
        self.ip("garbage-ike-4500", [outer(udp(4500, 4500, bytes(4) + garbage()), protocol=17) for _ in each],
                ["ike_no_daemon", *slow])
        self.ip("garbage-4500", [outer(udp(4500, 4500, b"\x0b\xad" + garbage()), protocol=17) for _ in each],
                ["udp_encap_unknown", *slow])

        def icmp(kind, i):
            message = bytearray(struct.pack(">BBHHH", kind, 0, 0, i % 65536, 1) + garbage())
            message[2:4] = struct.pack(">H", checksum(bytes(message)))
            return message

        def wrong_checksum(i):
            message = icmp(8, i)
            message[2] ^= 0x5A
            return bytes(message)

        self.ip("icmp-checksum", [outer(wrong_checksum(i), protocol=1) for i in each], ["icmp_invalid", *slow])
        self.ip("icmp-short", [outer(bytes(icmp(8, i))[:i % 8], protocol=1) for i in each], ["icmp_invalid", *slow])
        # Timestamp, address mask, redirect, source quench, unreachable, of nothing that was sent.
        self.ip("icmp-other", [outer(bytes(icmp((13, 17, 5, 4, 3)[i % 5], i)), protocol=1) for i in each],
                ["local_unhandled", *slow])

        def bad_arp(i):
            hardware, protocol, lengths, operation = 1, 0x0800, (6, 4), 1
            if i % 4 == 0:
                operation = 9
            elif i % 4 == 1:
                hardware = 6
            elif i % 4 == 2:
                lengths = (7, 4)
            else:
                protocol = 0x86DD
            return self.ethernet + b"\x08\x06" + struct.pack(
                ">HHBBH6s4s6s4s", hardware, protocol, *lengths, operation, self.ethernet[6:12],
                self.source, bytes(6), self.destination) + bytes(18)

        # No request for a virtual address that the program could see: the kernel's to judge.
        self.write("garbage-arp", [bad_arp(i) for i in each], ["out0.arp_other"], shared=True)
        self.ip("other-protocol", [outer(octets(0, 100), protocol=(6, 47, 51, 89, 132, 255)[i % 6]) for i in each],
                ["out0.virtual_unhandled"])

        # Nothing at all: any ethertype, any octets, and IPv4 headers of chance. Where it is steered it must be
        # accounted for; under which name is chance too.
        def chaos(i):
            if i % 2:
                return self.ethernet + octets(2, 400)
            head = bytearray(outer(octets(0, 300)))
            head[self.random.randrange(16)] = self.random.randrange(256)
            return self.ethernet + b"\x08\x00" + bytes(head)

        self.write("chaos", [chaos(i) for i in each], [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--keys", required=True)
    parser.add_argument("--spi", type=int, required=True)
    for name in ("to-mac", "from-mac", "remote-host", "local-host", "other-remote"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--count", type=int, required=True)
    maker = Maker(parser.parse_args())
    maker.make()
    print(json.dumps(maker.kinds))


if __name__ == "__main__":
    main()
