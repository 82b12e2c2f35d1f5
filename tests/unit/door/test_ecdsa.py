"""Signatures of a key pair: published examples, Wycheproof's vectors, another signer's, and ways to go wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.door import ecdsa
from handler.events.senders import Scheme
from tools.senders import sign

# RFC 6979, A.2.5: the curve P-256 with SHA-256.
X = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
Y = "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
EXAMPLES = [
    (
        b"sample",
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
        "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    ),
    (
        b"test",
        "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
        "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
    ),
]
KEY = base64.b64encode(ecdsa.KEY_PREFIX + bytes.fromhex(X + Y)).decode()
SCHEME = Scheme(scheme="ecdsa", header=("x-signature",))


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + bytes([len(raw)]) + raw


def der(r: int, s: int) -> bytes:
    both = integer(r) + integer(s)
    return b"\x30" + bytes([len(both)]) + both


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(("content", "r", "s"), EXAMPLES)
def test_the_published_signatures_verify_over_their_content_only(content: bytes, r: str, s: str) -> None:
    signature = encoded(der(int(r, 16), int(s, 16)))
    assert ecdsa.verifies(KEY, content, signature)
    assert not ecdsa.verifies(KEY, content + b" ", signature)
    assert not ecdsa.verifies(KEY, content, encoded(der(int(s, 16), int(r, 16))))


R, S = int(EXAMPLES[0][1], 16), int(EXAMPLES[0][2], 16)
GOOD = der(R, S)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x30",
        GOOD + b"\x00",
        GOOD[:-1],
        b"\x31" + GOOD[1:],
        b"\x30\x81" + GOOD[1:],
        der(0, S),
        der(R, 0),
        der(R + ecdsa.N, S),
        der(R, S + ecdsa.N),
        der(ecdsa.N, S),
        b"\x30\x46\x02\x22\x00\x00" + R.to_bytes(32, "big") + b"\x02\x20" + S.to_bytes(32, "big"),
        b"\x30\x44\x02\x20" + R.to_bytes(32, "big") + b"\x02\x20" + S.to_bytes(32, "big"),
        b"\x30\x06\x02\x01\x01\x02\x01\x01",
        b"\x30\x06\x02\x00\x02\x02\x01\x01",
        b"\x30\x06\x02\x7f\x01\x02\x01\x01",
    ],
)
def test_what_is_not_strictly_a_signature_verifies_nothing(raw: bytes) -> None:
    assert ecdsa.verifies(KEY, b"sample", encoded(GOOD))
    assert not ecdsa.verifies(KEY, b"sample", encoded(raw))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "*",
        KEY[:-4],
        KEY + "\n",
        encoded(ecdsa.KEY_PREFIX + bytes(64)),
        encoded(ecdsa.KEY_PREFIX + bytes.fromhex(Y + X)),
        encoded(ecdsa.KEY_PREFIX + (int(X, 16) + ecdsa.P).to_bytes(33, "big")[1:] + bytes.fromhex(Y)),
        encoded(bytes([0x31]) + ecdsa.KEY_PREFIX[1:] + bytes.fromhex(X + Y)),
        "-----BEGIN PUBLIC KEY-----",
        "\ud800",
    ],
)
def test_what_is_not_a_key_on_the_curve_verifies_nothing(key: str) -> None:
    assert not ecdsa.verifies(key, b"sample", encoded(GOOD))


@given(content=st.binary(max_size=200), signature=st.one_of(st.text(max_size=100), st.binary(max_size=72).map(encoded)))
def test_whatever_is_given_nothing_else_verifies(content: bytes, signature: str) -> None:
    assert not ecdsa.verifies(KEY, content, signature)


VECTORS = Path(__file__).parents[1] / "vectors/wycheproof_ecdsa_p256_sha256.txt"


def wycheproof() -> Iterator[tuple[str, bool, str, bytes, str]]:
    """Number, whether it is valid, key, message and signature of each vector; key and signature in base64."""
    key = ""
    for line in VECTORS.read_text("ascii").splitlines():
        if line.startswith("#"):
            continue
        number, *rest = line.split()
        if number == "key":
            key = encoded(bytes.fromhex(rest[0]))
            continue
        result, message, signature = (part.replace("-", "") for part in rest)
        yield number, result == "valid", key, bytes.fromhex(message), encoded(bytes.fromhex(signature))


def test_wycheproofs_vectors_are_judged_as_it_judges_them() -> None:
    vectors = list(wycheproof())
    assert (len(vectors), sum(valid for _, valid, *_ in vectors)) == (484, 174)
    wrong = [
        number for number, valid, key, text, signature in vectors if ecdsa.verifies(key, text, signature) is not valid
    ]
    assert not wrong, f"tcId of ecdsa_secp256r1_sha256_test.json: {wrong}"


def test_the_twin_of_a_signature_verifies_over_the_same_content_only() -> None:
    twin = encoded(der(R, ecdsa.N - S))
    assert ecdsa.verifies(KEY, b"sample", twin)
    assert not ecdsa.verifies(KEY, b"sample ", twin)


@settings(max_examples=60, deadline=None)
@given(
    number=st.integers(1, ecdsa.N - 1) | st.integers(1, 20) | st.integers(ecdsa.N - 20, ecdsa.N - 1),
    content=st.binary(max_size=200),
    place=st.integers(0, 10_000),
)
def test_another_implementation_and_ours_agree(number: int, content: bytes, place: int) -> None:
    private = ec.derive_private_key(number, ec.SECP256R1())
    public = private.public_key()
    key = encoded(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    signature = private.sign(content, ec.ECDSA(hashes.SHA256()))
    assert ecdsa.verifies(key, content, encoded(signature))
    changed = bytearray(signature)
    changed[place % len(changed)] ^= 1 << place % 8
    try:
        public.verify(bytes(changed), content, ec.ECDSA(hashes.SHA256()))
        theirs = True
    except InvalidSignature:
        theirs = False
    assert ecdsa.verifies(key, content, encoded(bytes(changed))) is theirs


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(["a", "b", "c"]), content=st.binary(max_size=200), place=st.integers(0, 10_000))
def test_the_tools_sign_what_the_door_verifies(name: str, content: bytes, place: int) -> None:
    key = sign.development_secret(name, SCHEME)
    signature = sign.ecdsa_signature(name, content)
    assert ecdsa.verifies(key, content, signature)
    changed = bytearray(base64.b64decode(signature))
    changed[place % len(changed)] ^= 1 << place % 8
    assert not ecdsa.verifies(key, content, encoded(bytes(changed)))
    assert not ecdsa.verifies(sign.development_secret("d", SCHEME), content, signature)


def coordinates(point: ecdsa.Point) -> tuple[int, int] | None:
    x, y, z = point
    inverse = pow(z, -1, ecdsa.P) if z else 0
    return (x * inverse**2 % ecdsa.P, y * inverse**3 % ecdsa.P) if z else None


def test_adding_a_point_to_itself_and_to_its_opposite() -> None:
    x, y, _ = ecdsa.BASE
    twice = coordinates(ecdsa.add(ecdsa.BASE, ecdsa.BASE))
    assert twice is not None
    assert twice[0] == int("7CF27B188D034F7E8A52380304B51AC3C08969E277F21B35A60B48FC47669978", 16)
    assert coordinates(ecdsa.add(ecdsa.BASE, (x, ecdsa.P - y, 1))) is None
    assert coordinates(ecdsa.add(ecdsa.INFINITY, ecdsa.BASE)) == (x, y)
