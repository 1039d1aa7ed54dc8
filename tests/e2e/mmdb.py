"""Makes small files in MaxMind's format (https://maxmind.github.io/MaxMind-DB/): a tree over 128 bits, a map a network."""

import ipaddress
import struct


class Short(int):
    """A number of 16 bits."""


class Long(int):
    """A number of 64 bits."""


def database(kind, networks):
    """`networks`: of each, not nested, what is known: a map of strings, numbers and maps."""
    nodes, data = [[None, None]], b""
    for network, record in networks.items():
        network = ipaddress.ip_network(network)
        bits, length = int(network.network_address), network.prefixlen + (96 if network.version == 4 else 0)
        offset, node = len(data), 0
        data += value(record)
        for depth in range(length):
            side = bits >> (127 - depth) & 1
            if depth == length - 1:
                nodes[node][side] = ("data", offset)
                break
            if nodes[node][side] is None:
                nodes.append([None, None])
                nodes[node][side] = ("node", len(nodes) - 1)
            node = nodes[node][side][1]
    count = len(nodes)

    def half(what):
        if what is None:
            return count
        return what[1] if what[0] == "node" else count + 16 + what[1]

    tree = b"".join(struct.pack(">I", half(what))[1:] for node in nodes for what in node)
    about = {
        "node_count": count,
        "record_size": Short(24),
        "ip_version": Short(6),
        "binary_format_major_version": Short(2),
        "binary_format_minor_version": Short(0),
        "build_epoch": Long(1_700_000_000),
        "database_type": kind,
        "languages": [],
        "description": {},
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + value(about)


def value(what):
    if isinstance(what, dict):
        return bytes([7 << 5 | len(what)]) + b"".join(value(key) + value(item) for key, item in what.items())
    if isinstance(what, list):
        return bytes([len(what), 4]) + b"".join(map(value, what))
    if isinstance(what, str):
        return bytes([2 << 5 | len(what)]) + what.encode()
    if isinstance(what, Short):
        return bytes([5 << 5 | 2]) + struct.pack(">H", what)
    if isinstance(what, Long):
        return bytes([8, 2]) + struct.pack(">Q", what)
    return bytes([6 << 5 | 4]) + struct.pack(">I", what)


def countries(networks):
    return database("Test-Country", {net: {"country": {"iso_code": code}} for net, code in networks.items()})


def providers(networks):
    return database("Test-ASN", {net: {"autonomous_system_number": asn} for net, asn in networks.items()})
