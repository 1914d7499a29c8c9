"""Encodes the parts of protobuf that an ONNX file needs. A message is the concatenation of its fields."""

import struct

VARINT, BYTES, FIXED32 = 0, 2, 5


def varint(value):
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number, value):
    return varint(number << 3 | VARINT) + varint(value)


def real(number, value):
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def data(number, *values):
    """Returns a field that holds bytes, or a message given in parts."""
    size = sum(len(value) for value in values)
    return b"".join((varint(number << 3 | BYTES), varint(size), *values))


def text(number, value):
    return data(number, value.encode())
