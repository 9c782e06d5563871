#!/usr/bin/env python3
"""ESP as scapy does it: opens and seals independently of the project.

    esp_oracle.py selftest
    esp_oracle.py open FILE.pcap --keys KEYS.json       every ESP packet of a capture
    esp_oracle.py respond --address IP --keys KEYS.json  an IPsec peer: opens ESP for IP, answers the
                                                         echo requests inside, seals the answers

KEYS.json as in capture_check.py. The key is key || salt, as RFC 4106 has it.
"""
import argparse
import json
import socket
import sys
import warnings

warnings.filterwarnings("ignore")
from scapy.config import conf  # noqa: E402

conf.verb = 0
conf.ipv6_enabled = False
from scapy.layers.inet import ICMP, IP, UDP  # noqa: E402
from scapy.layers.ipsec import ESP, SecurityAssociation  # noqa: E402
from scapy.packet import Raw  # noqa: E402


def association(key, sequence=1):
    """A scapy SA for one entry of the key file."""
    if key["transform"] not in ("aes128gcm16", "aes256gcm16"):
        raise ValueError(f"unknown transform {key['transform']}")
    return SecurityAssociation(
        ESP, spi=key["spi"], seq_num=sequence, crypt_algo="AES-GCM", crypt_key=bytes.fromhex(key["key"]),
        tunnel_header=IP(src=key["source"], dst=key["destination"]))


class Opener:
    """Opens outer IPv4 packets with the SA that SPI and destination name."""

    def __init__(self, keys):
        self.associations = {(k["spi"], k["destination"]): association(k) for k in keys}

    def open(self, packet):
        outer = IP(packet[:int.from_bytes(packet[2:4], "big")])
        if ESP not in outer:
            raise ValueError("no ESP")
        key = (outer[ESP].spi, outer.dst)
        if key not in self.associations:
            raise KeyError(f"no SA {key[0]:#x} to {key[1]}")
        inner = self.associations[key].decrypt(outer)
        if not isinstance(inner, IP):
            raise ValueError("inner packet is no IPv4")
        return inner


def inner_is_protected(inner, protected):
    """Does an inner packet run between one pair of prefixes ((net, mask), (net, mask))?"""
    source = int.from_bytes(socket.inet_aton(inner.src), "big")
    destination = int.from_bytes(socket.inet_aton(inner.dst), "big")
    return any(
        (source & mask_a == net_a and destination & mask_b == net_b)
        or (source & mask_b == net_b and destination & mask_a == net_a)
        for (net_a, mask_a), (net_b, mask_b) in protected)


def selftest():
    for transform, length in (("aes128gcm16", 20), ("aes256gcm16", 36)):
        key = {"spi": 0x1001, "source": "192.0.2.1", "destination": "192.0.2.9", "transform": transform,
               "key": bytes(range(length)).hex()}
        inner = IP(src="10.1.0.1", dst="10.2.0.1") / UDP(sport=5, dport=6) / Raw(b"a payload")
        packet = bytes(association(key).encrypt(inner))
        assert bytes(Opener([key]).open(packet)) == bytes(IP(bytes(inner))), transform
        for position in (24, 36, len(packet) - 1):  # sequence number, text, ICV
            damaged = bytearray(packet)
            damaged[position] ^= 1
            try:
                Opener([key]).open(bytes(damaged))
            except Exception:
                continue
            raise AssertionError(f"{transform}: octet {position} is not authenticated")
    print("ok")


def open_file(arguments):
    from capture_check import records
    keys = json.load(open(arguments.keys))
    opener = Opener(keys)
    esp = opened = 0
    for frame, _ in records(arguments.file):
        if frame[12:14] != b"\x08\x00" or frame[23] != 50:
            continue
        esp += 1
        try:
            print(opener.open(frame[14:]).summary())
            opened += 1
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    print(f"{opened} of {esp} ESP packets opened")
    return 0 if esp and opened == esp else 1


def respond(arguments):
    """Answers echo requests that come through a tunnel, until it is ended."""
    keys = json.load(open(arguments.keys))
    inbound = [k for k in keys if k["destination"] == arguments.address]
    outbound = {k["destination"]: association(k) for k in keys if k["source"] == arguments.address}
    opener = Opener(inbound)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
    receiver.bind((arguments.address, 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    print("listening", flush=True)
    while True:
        packet = receiver.recv(65535)
        try:
            inner = opener.open(packet)
        except Exception as error:
            print(f"not opened: {type(error).__name__}: {error}", flush=True)
            continue
        print(f"opened: {inner.summary()}", flush=True)
        if ICMP not in inner or inner[ICMP].type != 8:
            continue
        request = inner[ICMP]
        reply = IP(src=inner.dst, dst=inner.src, ttl=64) / ICMP(type=0, id=request.id, seq=request.seq) / request.payload
        peer = IP(packet).src
        sealed = outbound[peer].encrypt(reply)
        sender.sendto(bytes(sealed), (peer, 0))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("selftest")
    one = commands.add_parser("open")
    one.add_argument("file")
    one.add_argument("--keys", required=True)
    other = commands.add_parser("respond")
    other.add_argument("--address", required=True)
    other.add_argument("--keys", required=True)
    arguments = parser.parse_args()
    if arguments.command == "selftest":
        return selftest()
    if arguments.command == "open":
        return open_file(arguments)
    return respond(arguments)


if __name__ == "__main__":
    sys.exit(main())
