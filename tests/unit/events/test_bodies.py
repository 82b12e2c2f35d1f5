"""From bytes to a document: what is read, what is not, and that nothing else happens."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import Unmapped
from handler.events import bodies
from handler.events.bodies import Body
from handler.events.expressions import Expression

JSON, FORM, MULTIPART = Body(), Body(("form",)), Body(("multipart",))
EITHER = Body(("json", "form"), form=("payload",))
NESTED_PARTS = b"".join(
    b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(2_000)
)


@pytest.mark.parametrize(
    ("body", "kind", "document"),
    [
        (b'{"a":1}', JSON, {"a": 1}),
        (b'\xef\xbb\xbf{"a":1}', JSON, {"a": 1}),
        (b'{"a":1,"a":2}', JSON, {"a": 2}),
        (b"[1,2]", JSON, [1, 2]),
        (b'{"a":"one\ntwo\t\x00"}', JSON, {"a": "one\ntwo\t\x00"}),
        (b'{"a":1}\n{"a":"\xe2\x80\xa8"}\r\n\n', JSON, [{"a": 1}, {"a": "\u2028"}]),
        (b"a=1&b=&a=2", FORM, {"a": ["1", "2"], "b": ""}),
        (b"data%5Bmerges%5D%5BEMAIL%5D=kim%40mail.example", FORM, {"data": {"merges": {"EMAIL": "kim@mail.example"}}}),
        (b"\xef\xbb\xbfa=1", FORM, {"a": "1"}),
        (b"", FORM, {}),
        (b' \n{"payload":"x&payload=y"}', EITHER, {"payload": "x&payload=y"}),
        (b'\xef\xbb\xbf [{"payload":1}]', EITHER, [{"payload": 1}]),
        (b"payload=%7B%7D", EITHER, {"payload": "{}"}),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--', Body(("form", "multipart")), {"a": "1"}),
        (b"a=1", Body(("form", "multipart"), form=("a",)), {"a": "1"}),
        ('{"a":"Zoë"}'.encode(), Body(charset="latin-1"), {"a": "Zoë"}),
        ('{"a":"Zoë"}'.encode("latin-1"), Body(charset="latin-1"), {"a": "Zoë"}),
        (b"a=Zo%C3%AB", Body(("form",), charset="latin-1"), {"a": "Zoë"}),
        (b"a=Zo%EB", Body(("form",), charset="latin-1"), {"a": "Zoë"}),
        (b"a=Zo%EB", Body(("form", "multipart"), form=("a",), charset="latin-1"), {"a": "Zoë"}),
        (b"a=Zo%C3%AB", Body(("form", "multipart"), form=("a",), charset="latin-1"), {"a": "Zoë"}),
        (b"a=Zo\xeb", Body(("form", "multipart"), form=("a",), charset="latin-1"), {"a": "Zoë"}),
    ],
)
def test_a_body_is_read_as_its_senders_file_says(body: bytes, kind: Body, document: Any) -> None:
    assert bodies.parse(body, kind) == document


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"a=1", JSON),
        (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n", JSON),
        (b'{"a":1}', FORM),
        (b'\xef\xbb\xbf {"a":"&b=1&c"}', FORM),
        (b'[{"a":"&b=1&c"}]', FORM),
        (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n", FORM),
        (b"\xef\xbb\xbf--b\r\ncontent-type: text/plain\r\nContent-Disposition: form-data; name=a\r\n\r\n1&b=1", FORM),
        (b'{"a":"&b=1"}', MULTIPART),
        (b"a=1", EITHER),
        (b"payload=1&a=1", EITHER),
        (b"payload[a]=1", EITHER),
        (b'{"note": "x&payload=1', EITHER),
        (b'"payload=1"', EITHER),
    ],
)
def test_a_body_of_another_kind_than_the_file_says_is_not_read(body: bytes, kind: Body) -> None:
    with pytest.raises(Unmapped) as caught:
        bodies.parse(body, kind)
    assert caught.value.reason in ("not_json", "not_form")


def test_a_multipart_form_is_read_without_its_files() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="rawRequest"\r\n\r\n{"q1":"Zo\xc3\xab"}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="me.png"\r\n\r\nPNG\r\n--b--\r\n'
    )
    assert bodies.parse(body, MULTIPART) == {"rawRequest": '{"q1":"Zoë"}'}


def test_a_multipart_forms_names_are_utf_8_and_nest() -> None:
    body = '--b\r\nContent-Disposition: form-data; name="Größe[a\\"b]"\r\n\r\n12\r\n--b--\r\n'.encode()
    assert bodies.parse(body, MULTIPART) == {"Größe": {'a"b': "12"}}


@pytest.mark.parametrize("body", [b"a=1&b=", b"a=1&b", b"&a=1&&b&"])
def test_a_form_may_have_empty_pieces_and_names_without_values(body: bytes) -> None:
    assert bodies.parse(body, FORM) == {"a": "1", "b": ""}


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'Content-Disposition: form-data; name="q3_na\xc3\xafve"', "q3_naïve"),
        (b'content-disposition: form-data; name="q3_name"\r\nContent-Type: text/plain; charset=utf-8', "q3_name"),
        (b'CONTENT-DISPOSITION: form-data;name="q3_name"', "q3_name"),
        (b'Content-Disposition: form-data; name="q3_%22name%22"', 'q3_"name"'),
    ],
)
def test_the_parts_of_a_form_have_the_names_that_they_say(head: bytes, name: str) -> None:
    body = b"--b\r\n" + head + b"\r\n\r\nKim\r\n--b--\r\n"
    assert bodies.parse(body, MULTIPART) == {name: "Kim"}


FILE = b'--b\r\nContent-Disposition: form-data; name="photo"; %s\r\n\r\nPNG\r\n--b--\r\n'


@pytest.mark.parametrize(
    "named", [b'filename="me.png"', b"filename=me.png", b"filename*=UTF-8''me.png", b"filename*=a\x00b''x"]
)
def test_a_file_is_left_out_however_its_name_is_written(named: bytes) -> None:
    assert bodies.parse(FILE % named, MULTIPART) == {}


def test_the_boundary_of_a_form_is_that_of_its_first_line() -> None:
    body = b'--a b?\r\nContent-Disposition: form-data; name="q"\r\n\r\n--b\r\n--a b?--\r\n'
    assert bodies.parse(body, MULTIPART) == {"q": "--b"}


PART = b'--b\r\n%sContent-Disposition: form-data; name="%s"\r\n\r\n1\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"&".join(b"a=1" for _ in range(5_001)), FORM, "too_many_fields"),
        (b"a=" + b"1" * bodies.FORM_BYTES, FORM, "inflates_too_far"),
        (b"1" * (bodies.FORM_BYTES + 1), MULTIPART, "inflates_too_far"),
        (b"", JSON, "not_json"),
        (b"{", JSON, "not_json"),
        (b'{"a":1}\n{"a":', JSON, "not_json"),
        (b'{"a":1}\n2', JSON, "not_json"),
        (b"\xff", JSON, "not_utf8"),
        (b"a=Zo%EB", FORM, "not_utf8"),
        (b"a=1&%EB=2", FORM, "not_utf8"),
        (b"a=%81", Body(("form",), charset="windows-1252"), "not_utf8"),
        (b"\xff", FORM, "not_utf8"),
        (b"no pairs", FORM, "not_form"),
        (b"x", MULTIPART, "not_form"),
        (b"--b\r\n\r\n1\r\n--b--\r\n", MULTIPART, "not_form"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--\r\n", MULTIPART, "not_form"),
        (b"--b\r\nContent-Disposition: form-data; name*=a; name*0=b\r\n\r\n1\r\n--b--\r\n", MULTIPART, "not_form"),
        (b'--b\r\nContent-Disposition: form-data; name="q"\r\n\r\n1', MULTIPART, "not_form"),
        (b"--" + b"b" * 71 + b"\r\n\r\n", MULTIPART, "not_form"),
        (PART % (b"", b"\xff"), MULTIPART, "not_utf8"),
        (PART % (b"", b"q" * 1_000), MULTIPART, "too_many_fields"),
        (PART % (b"X-A: 1\r\n" * 8, b"q"), MULTIPART, "too_many_fields"),
        (PART % (b"X-A: 1\r\n 2\r\n", b"q"), MULTIPART, "not_form"),
        ((PART % (b"", b"q"))[:-7] * 5_001 + b"--b--", MULTIPART, "too_many_fields"),
        (b"\xff", Body(charset="ascii"), "not_utf8"),
        (NESTED_PARTS, MULTIPART, "not_form"),
        (b"[" * 100_000 + b"]" * 100_000, JSON, "too_many_objects"),
        (b"[" * 40_000 + b"]" * 40_000, JSON, "nested_too_deep"),
        (b"[" + b"1," * (bodies.MOST_VALUES + 1) + b"1]", JSON, "too_many_objects"),
    ],
)
def test_what_cannot_be_read_has_a_reason(body: bytes, kind: Body, reason: str) -> None:
    with pytest.raises(Unmapped) as caught:
        bodies.parse(body, kind)
    assert caught.value.reason == reason


def test_a_reason_says_where_and_not_what() -> None:
    with pytest.raises(Unmapped) as caught:
        bodies.parse(b'{"email": "kim@mail.example" oops}')
    assert "line 1" in str(caught.value)
    assert "kim" not in str(caught.value)


def test_numbers_and_nesting_past_all_bounds_do_not_crash() -> None:
    assert bodies.parse(b"9" * 100_000) > 2**63
    with pytest.raises(Unmapped):
        bodies.parse(b"[" * 100_000 + b"]" * 100_000)


def test_gzip_is_known_by_its_first_bytes_and_unpacked_up_to_a_limit() -> None:
    assert bodies.unpack(gzip.compress(b'{"a":1}')) == b'{"a":1}'
    assert bodies.unpack(b'{"a":1}') == b'{"a":1}'
    for body, reason in (
        (gzip.compress(b"0" * (bodies.INFLATED_BYTES + 1)), "inflates_too_far"),
        (b"\x1f\x8bplain", "not_gzip"),
        (gzip.compress(b"cut off")[:-4], "not_gzip"),
        (gzip.compress(b"{}") + b"more", "not_gzip"),
    ):
        with pytest.raises(Unmapped) as caught:
            bodies.unpack(body)
        assert caught.value.reason == reason


def test_a_field_that_is_signed_comes_once_and_under_a_plain_name() -> None:
    body = "Body=50%25+off%2C+caf%C3%A9+%5C%26&From=%2B4915112345678&SipHeader_X-A.b=&&Empty"
    expected = [("Body", "50% off, café \\&"), ("From", "+4915112345678"), ("SipHeader_X-A.b", ""), ("Empty", "")]
    assert bodies.plain_fields(body.encode()) == expected
    for form in (
        b"A=1&A=1",
        b"A=1&A=2",
        b"A=1&%41=1",
        b"A[b]=1",
        b"=1",
        b"A%20b=1",
        b"A=%4",
        b"A=%zz",
        b"A=%ff",
        b"A=\xff",
    ):
        with pytest.raises(Unmapped):
            bodies.plain_fields(form)
    with pytest.raises(Unmapped):
        bodies.plain_fields(b"&".join(b"a%d=" % number for number in range(151)))


@given(st.dictionaries(st.text("abcXYZ019_.-", min_size=1, max_size=9), st.text(max_size=20), max_size=20))
def test_signed_fields_are_what_any_other_reader_of_forms_finds(form: dict[str, str]) -> None:
    assert bodies.plain_fields(urlencode(form, errors="replace").encode()) == parse_qsl(
        urlencode(form, errors="replace"), keep_blank_values=True
    )


KINDS = st.builds(
    Body,
    st.lists(st.sampled_from(bodies.KINDS), min_size=1, unique=True).map(tuple),
    st.just(("a", "payload")),
    st.sampled_from(["", "latin-1", "ascii", "shift_jis"]),
    st.booleans(),
)


@given(body=st.binary(max_size=300), kind=KINDS)
def test_any_bytes_are_read_or_have_a_reason(body: bytes, kind: Body) -> None:
    reason = "read"
    try:
        bodies.parse(bodies.unpack(body), kind)
    except Unmapped as error:
        reason = error.reason
    assert reason


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4)))
def test_json_comes_out_as_it_went_in(document: Any) -> None:
    assert bodies.parse(json.dumps(document).encode(), JSON) == document


@given(st.lists(st.tuples(st.text("ab[]", max_size=9), st.text(max_size=5)), max_size=8))
def test_form_names_in_brackets_never_crash(pairs: list[tuple[str, str]]) -> None:
    assert isinstance(bodies.parse(urlencode(pairs).encode("utf-8", "replace"), FORM), dict)


@pytest.mark.parametrize("text", ['["{}' * 600_000, '"\\' * 600_000 + "[" * 60_000, '["[",' * 600_000])
def test_what_only_seems_to_hold_objects_is_read_through_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(Unmapped):
        bodies.parse(text.encode(), JSON)
    assert time.process_time() - began < 2


def test_json_inside_a_form_may_hold_no_more_objects_than_a_body() -> None:
    form = {"rawRequest": "[" + "{}," * 60_000 + "{}]"}
    assert Expression("json(rawRequest)").of(form) is None
