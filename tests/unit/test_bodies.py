"""From bytes to a document: what is read, what is not, and that nothing else happens."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import bodies
from handler.errors import Unmapped
from handler.expressions import Expression

FORM = "application/x-www-form-urlencoded"
NESTED_PARTS = b"".join(
    b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(2_000)
)


@pytest.mark.parametrize(
    ("body", "kind", "document"),
    [
        (b'{"a":1}', "application/json", {"a": 1}),
        (b'\xef\xbb\xbf{"a":1}', "application/json; charset=utf-8", {"a": 1}),
        (b'{"a":1,"a":2}', "", {"a": 2}),
        (b"[1,2]", "text/plain", [1, 2]),
        (b'{"a":1}\n{"a":"\xe2\x80\xa8"}\r\n\n', "application/json", [{"a": 1}, {"a": "\u2028"}]),
        (b"a=1&b=&a=2", FORM, {"a": ["1", "2"], "b": ""}),
        (b"data%5Bmerges%5D%5BEMAIL%5D=kim%40mail.example", FORM, {"data": {"merges": {"EMAIL": "kim@mail.example"}}}),
        (b"webhook_id=12", FORM + "; charset=UTF-8", {"webhook_id": "12"}),
        (b"", FORM, {}),
    ],
)
def test_a_body_is_read_as_its_type_says(body: bytes, kind: str, document: Any) -> None:
    assert bodies.parse(body, kind) == document


def test_a_multipart_form_is_read_without_its_files() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="rawRequest"\r\n\r\n{"q1":"Zo\xc3\xab"}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="me.png"\r\n\r\nPNG\r\n--b--\r\n'
    )
    assert bodies.parse(body, "multipart/form-data; boundary=b") == {"rawRequest": '{"q1":"Zoë"}'}


def test_a_multipart_forms_names_are_utf_8_and_nest() -> None:
    body = '--b\r\nContent-Disposition: form-data; name="Größe[a\\"b]"\r\n\r\n12\r\n--b--\r\n'.encode()
    assert bodies.parse(body, "multipart/form-data; boundary=b") == {"Größe": {'a"b': "12"}}


@pytest.mark.parametrize("body", [b"a=1&b=", b"a=1&b", b"&a=1&&b&"])
def test_a_form_may_have_empty_pieces_and_names_without_values(body: bytes) -> None:
    assert bodies.parse(body, FORM) == {"a": "1", "b": ""}


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'Content-Disposition: form-data; name="q3_na\xc3\xafve"', "q3_naïve"),
        (b'content-disposition: form-data; name="q3_name"\r\nContent-Type: text/plain; charset=utf-8', "q3_name"),
        (b'CONTENT-DISPOSITION: form-data;name="q3_name"', "q3_name"),
        (b'Content-Disposition: form-data; name="q3_\xff"', "q3_\ufffd"),
    ],
)
def test_the_parts_of_a_form_have_the_names_that_they_say(head: bytes, name: str) -> None:
    body = b"--b\r\n" + head + b"\r\n\r\nKim\r\n--b--\r\n"
    assert bodies.parse(body, "multipart/form-data; boundary=b") == {name: "Kim"}


@pytest.mark.parametrize(
    "head", [b"", b"Content-Disposition: form-data", b'Content-Disposition: form-data; filename="x"']
)
def test_a_part_without_a_name_is_left_out(head: bytes) -> None:
    body = b"--b\r\n" + head + b"\r\n\r\nKim\r\n--b--\r\n"
    assert bodies.parse(body, "multipart/form-data; boundary=b") == {}


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"&".join(b"a=1" for _ in range(5_001)), FORM, "too_many_fields"),
        (b"a=" + b"1" * bodies.FORM_BYTES, FORM, "inflates_too_far"),
        (b"1" * (bodies.FORM_BYTES + 1), "multipart/form-data; boundary=b", "inflates_too_far"),
        (b"", "application/json", "not_json"),
        (b"{", "application/json", "not_json"),
        (b'{"a":1}\n{"a":', "application/json", "not_json"),
        (b'{"a":1}\n2', "application/json", "not_json"),
        (b"\xff", "application/json", "not_utf8"),
        (b"\xff", FORM, "not_utf8"),
        (b"no pairs", FORM, "not_form"),
        (b"x", "multipart/form-data", "not_form"),
        (
            b"--b\r\nContent-Disposition: form-data; name*=a; name*0=b\r\n\r\n1",
            "multipart/form-data; boundary=b",
            "not_form",
        ),
        (NESTED_PARTS, "multipart/form-data; boundary=b0", "not_form"),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", "too_many_objects"),
        (b"[" * 40_000 + b"]" * 40_000, "application/json", "nested_too_deep"),
        (b"[" + b"1," * (bodies.MOST_VALUES + 1) + b"1]", "application/json", "too_many_objects"),
    ],
)
def test_what_cannot_be_read_has_a_reason(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(Unmapped) as caught:
        bodies.parse(body, kind)
    assert caught.value.reason == reason


def test_a_reason_says_where_and_not_what() -> None:
    with pytest.raises(Unmapped) as caught:
        bodies.parse(b'{"email": "kim@mail.example" oops}', "")
    assert "line 1" in str(caught.value)
    assert "kim" not in str(caught.value)


def test_numbers_and_nesting_past_all_bounds_do_not_crash() -> None:
    assert bodies.parse(b"9" * 100_000, "") > 2**63
    with pytest.raises(Unmapped):
        bodies.parse(b"[" * 100_000 + b"]" * 100_000, "")


def test_gzip_is_unpacked_up_to_a_limit() -> None:
    assert bodies.unpack(gzip.compress(b'{"a":1}'), "gzip") == b'{"a":1}'
    for body, coding, reason in (
        (gzip.compress(b"0" * (bodies.INFLATED_BYTES + 1)), "gzip", "inflates_too_far"),
        (b"plain", "gzip", "not_gzip"),
        (gzip.compress(b"cut off")[:-4], "gzip", "not_gzip"),
        (gzip.compress(b"{}") + b"more", "gzip", "not_gzip"),
        (b"x", "br", "unknown_encoding"),
    ):
        with pytest.raises(Unmapped) as caught:
            bodies.unpack(body, coding)
        assert caught.value.reason == reason


KINDS = st.one_of(
    st.sampled_from(["", "application/json", FORM, "multipart/form-data; boundary=b", "multipart/form-data"]),
    st.text(max_size=40),
)


@given(body=st.binary(max_size=300), kind=KINDS)
def test_any_bytes_are_read_or_have_a_reason(body: bytes, kind: str) -> None:
    try:
        bodies.parse(bodies.unpack(body, ""), kind)
    except Unmapped:
        return


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)))
def test_json_comes_out_as_it_went_in(document: Any) -> None:
    assert bodies.parse(json.dumps(document).encode(), "application/json") == document


@given(st.lists(st.tuples(st.text("ab[]", max_size=9), st.text(max_size=5)), max_size=8))
def test_form_names_in_brackets_never_crash(pairs: list[tuple[str, str]]) -> None:
    assert isinstance(bodies.parse(urlencode(pairs).encode("utf-8", "replace"), FORM), dict)


@pytest.mark.parametrize("text", ['["{}' * 600_000, '"\\' * 600_000 + "[" * 60_000, '["[",' * 600_000])
def test_what_only_seems_to_hold_objects_is_read_through_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(Unmapped):
        bodies.parse(text.encode(), "application/json")
    assert time.process_time() - began < 2


def test_json_inside_a_form_may_hold_no_more_objects_than_a_body() -> None:
    form = {"rawRequest": "[" + "{}," * 60_000 + "{}]"}
    assert Expression("json(rawRequest)").of(form) is None
