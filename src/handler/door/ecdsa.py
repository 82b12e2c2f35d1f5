"""ECDSA over P-256 with SHA-256, verifying only: for senders that sign with a key pair.

Verifying handles public values alone, so nothing here need run in constant
time. Loaded for such a sender's first webhook (the reason: docs/decisions/). Curve and
algorithm: SEC 1 (4.1.4) and SEC 2 (2.4.2); encodings: RFC 5480, RFC 3279.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from functools import lru_cache, reduce
from itertools import islice

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
_GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5
# SubjectPublicKeyInfo of an uncompressed point on this curve, up to the point's coordinates.
KEY_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")

Point = tuple[int, int, int]  # Jacobian: (X / Z², Y / Z³); Z is 0 at infinity
_TEETH, _WIDTH, _BLOCKS = 10, 26, 2
_HEIGHT = _WIDTH // _BLOCKS
BASE: Point = (_GX, _GY, 1)
INFINITY: Point = (1, 1, 0)


def verifies(key: str, content: bytes, signature: str) -> bool:
    """Return whether ``signature`` (DER in base64) shows that the private half of ``key`` signed ``content``.

    ``key`` is the sender's public key as it shows it: SubjectPublicKeyInfo in
    base64. Any other key or signature is rejected.

    A signature has a twin, (r, N - s), which anyone can compute from it and
    which is valid too (SEC 1, 4.1.4). Both are accepted: signers do not choose
    the smaller s, so a rule would refuse half of what they sign. The twin signs
    the same content, and nothing here identifies a webhook by its signature.
    """
    point, pair = public_point(key), _pair(signature)
    if point is None or pair is None:
        return False
    r, s = pair
    e = int.from_bytes(hashlib.sha256(content).digest(), "big")
    w = pow(s, -1, N)
    x, _, z = _sum_of_products(e * w % N, BASE, r * w % N, point)
    # X is x·Z², so no inversion is needed. Two x below P may be r modulo N: both are tried.
    return z != 0 and any((x - x_r * z * z) % P == 0 for x_r in (r, r + N) if x_r < P)


def public_point(key: str) -> Point | None:
    """Return the point of a public key, or ``None`` if the text is not a key or its point is not on the curve."""
    raw = _decoded(key)
    if raw is None or len(raw) != len(KEY_PREFIX) + 64 or not raw.startswith(KEY_PREFIX):
        return None
    x, y = int.from_bytes(raw[-64:-32], "big"), int.from_bytes(raw[-32:], "big")
    if x >= P or y >= P or (y * y - x * x * x + 3 * x - _B) % P:
        return None
    return x, y, 1


def _decoded(written: str) -> bytes | None:
    """Decode base64 in its one canonical spelling; ``None`` for any other text."""
    try:
        raw = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == written else None


def _pair(written: str) -> tuple[int, int] | None:
    """Return ``r`` and ``s`` of a signature in strict DER, each from 1 to the curve's order."""
    raw = _decoded(written) or b""
    if not 8 <= len(raw) <= 72 or raw[0] != 0x30 or raw[1] != len(raw) - 2:
        return None
    r, rest = _integer(raw[2:])
    s, rest = _integer(rest)
    return (r, s) if not rest and 0 < r < N and 0 < s < N else None


def _integer(raw: bytes) -> tuple[int, bytes]:
    """Return the first integer of ``raw`` and what follows it; 0 if it is malformed, which no signature holds."""
    length = raw[1] if len(raw) > 1 else 0
    digits = raw[2 : 2 + length]
    padded = len(digits) > 1 and not digits[0] and digits[1] < 0x80
    if raw[:1] != b"\x02" or not length or len(digits) < length or digits[0] > 0x7F or padded:
        return 0, b""
    return int.from_bytes(digits, "big"), raw[2 + length :]


def _sum_of_products(a: int, left: Point, b: int, right: Point) -> Point:
    """Return ``a·left + b·right``, by combs (Lim and Lee, "More flexible exponentiation", 1994)."""
    blocks = [*_blocks(a, _combs(left)), *_blocks(b, _combs(right))]
    total = INFINITY
    for point in _sums([[comb[tooth] for comb, tooth in row] for row in zip(*blocks, strict=True)]):
        total = add(_double(total), point)
    return total


def _blocks(factor: int, combs: list[list[Point]]) -> Iterator[list[tuple[list[Point], int]]]:
    """Yield the comb and each column's bits for every block of ``_HEIGHT`` columns, the highest first."""
    columns = _columns(factor)
    for block, comb in enumerate(reversed(combs)):
        yield [(comb, tooth) for tooth in columns[block * _HEIGHT : (block + 1) * _HEIGHT]]


def _sums(rows: list[list[Point]]) -> list[Point]:
    """Return the sum of each row of points with Z 1: in pairs, all of which share an inversion."""
    rows = [[point for point in row if point[2]] for row in rows]
    while any(len(row) > 1 for row in rows):
        pairs = [pair for row in rows for pair in zip(row[::2], row[1::2], strict=False)]
        differences = [right[0] - left[0] for left, right in pairs]
        if 0 in differences:  # a point and itself, or its negative
            return [reduce(add, row, INFINITY) for row in rows]
        added = map(_chord, pairs, _inverses(differences))
        rows = [[*islice(added, len(row) // 2), *row[len(row) & ~1 :]] for row in rows]
    return [row[0] if row else INFINITY for row in rows]


def _chord(pair: tuple[Point, Point], inverse: int) -> Point:
    """Return the sum of two points with Z 1, from the inverse of the difference of their X."""
    (x1, y1, _), (x2, y2, _) = pair
    slope = (y2 - y1) * inverse % P
    x3 = (slope * slope - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P, 1


def _columns(factor: int) -> list[int]:
    """Return the bits of ``factor`` as ``_TEETH`` rows of ``_WIDTH``, read by column, the highest first."""
    bits = f"{factor:0{_TEETH * _WIDTH}b}"
    return [int(bits[place::_WIDTH], 2) for place in range(_WIDTH)]


@lru_cache(maxsize=16)
def _combs(point: Point) -> list[list[Point]]:
    """Return a comb for each block, the lowest first: the multiple of ``point``, with Z 1, for each column of bits."""
    multiples = [point]
    while len(multiples) < _TEETH * _BLOCKS:
        for _ in range(_HEIGHT):
            point = _double(point)
        multiples.append(point)
    combs = [[INFINITY] for _ in range(_BLOCKS)]
    for place, multiple in enumerate(_normalised(multiples)):
        comb = combs[place % _BLOCKS]
        comb += _sums([[multiple, other] for other in comb])
    return combs


def _normalised(points: list[Point]) -> list[Point]:
    """Return ``points`` with Z 1, none of them at infinity."""
    inverses = _inverses([z for _, _, z in points])
    return [(x * own**2 % P, y * own**3 % P, 1) for (x, y, _), own in zip(points, inverses, strict=True)]


def _inverses(numbers: list[int]) -> list[int]:
    """Return the inverse of each number, none of them 0, by one inversion (Montgomery's trick)."""
    products = [1]
    for number in numbers:
        products.append(products[-1] * number % P)
    inverse = pow(products.pop(), -1, P)
    inverses: list[int] = []
    for number in reversed(numbers):
        inverses.append(inverse * products.pop() % P)
        inverse = inverse * number % P
    return inverses[::-1]


def add(left: Point, right: Point) -> Point:
    """Return the sum of two points."""
    if not left[2]:
        return right
    if not right[2]:
        return left
    x1, y1, z1 = left
    x2, y2, z2 = right
    zz1 = z1 * z1 % P
    u1, s1, u2, s2 = x1, y1, x2 * zz1 % P, y2 * z1 * zz1 % P
    if z2 != 1:
        zz2 = z2 * z2 % P
        u1, s1 = x1 * zz2 % P, y1 * z2 * zz2 % P
    h, r = (u2 - u1) % P, (s2 - s1) % P
    if not h:
        return INFINITY if r else _double(left)
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, h * z1 * z2 % P


def _double(point: Point) -> Point:
    x, y, z = point
    zz, yy = z * z % P, y * y % P
    beta = x * yy % P
    alpha = 3 * (x - zz) * (x + zz) % P  # the curve's a is -3
    x3 = (alpha * alpha - 8 * beta) % P
    return x3, (alpha * (4 * beta - x3) - 8 * yy * yy) % P, 2 * y * z % P
