"""What plain clients post: every body of a message is the bytes that came, or the whole post is refused by name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simlink.channels.http.plain import header_map, read_post
from simlink.channels.http.problem import Problem, read_problem
from simlink.channels.identity import format_identities

JSON = {b"content-type": b"application/json"}
LINES = {b"content-type": b"application/x-ndjson"}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def bodies(headers, body):
    return list(read_post(headers, body).batch.bodies)


def problem(headers, body):
    with pytest.raises(Problem) as caught:
        read_post(headers, body)
    return caught.value


@settings(deadline=None)
@given(rows=st.lists(values, max_size=6), spaces=st.sampled_from(["", " ", "\n\t "]))
def test_an_array_is_its_elements_byte_by_byte(rows, spaces):
    cells = [json.dumps(row) for row in rows]
    body = f"{spaces}[{f'{spaces},{spaces}'.join(cells)}]{spaces}".encode()
    assert bodies(JSON, body) == [cell.encode() for cell in cells]


@settings(deadline=None)
@given(rows=st.lists(values, max_size=6), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_lines_are_messages_and_empty_lines_are_nothing(rows, end):
    cells = [json.dumps(row, ensure_ascii=False) for row in rows]
    assert bodies(LINES, end.join([*cells, ""]).encode()) == [cell.encode() for cell in cells]


@settings(deadline=None)
@given(value=values.filter(lambda v: not isinstance(v, list)))
def test_a_single_value_is_one_message_as_it_is(value):
    body = b" " + json.dumps(value).encode() + b"\n"
    assert bodies(JSON, body) == [body]


@settings(deadline=None)
@given(body=st.binary(max_size=60), kind=st.sampled_from([JSON, LINES, {b"content-type": b"application/vnd.x+json"}]))
def test_whatever_comes_is_taken_or_refused_by_name(body, kind):
    refused = None
    try:
        found = bodies(kind, body)
    except Problem as error:
        refused, found = error, []
    assert refused is None or (refused.status, refused.kind) == (400, "json")
    for one in found:
        json.loads(one)  # what is taken is JSON


@pytest.mark.parametrize("body", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_json_a_hundred_thousand_deep_is_refused(body):
    assert problem(JSON, body).detail == "the JSON is nested too deeply"
    assert problem(LINES, body).detail == "line 1: the JSON is nested too deeply"


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_that_a_body_is_empty_is_said(body):
    assert problem(JSON, body).detail == "the body is empty, and that is no JSON"


def test_a_bad_line_is_named_and_refuses_them_all():
    refused = problem(LINES, b'{"a":1}\n\n{"a":}\n')
    assert (refused.status, refused.more) == (400, {"line": 3})


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-protobuf", b"application/octet-stream"])
def test_other_kinds_are_one_message_of_that_kind(kind):
    batch = read_post({b"content-type": kind}, b"\xff\x00").batch
    assert (list(batch.bodies), list(batch.content_types)) == ([b"\xff\x00"], [kind.decode()])


@pytest.mark.parametrize("headers", [{}, {b"content-type": b"application/x-www-form-urlencoded"}])
def test_an_unknown_kind_is_told_what_is_taken(headers):
    refused = problem(headers, b"a=1")
    assert refused.status == 415
    assert "send application/json" in refused.detail


def test_keys_and_headers_that_are_about_the_message_are_taken():
    headers = {
        **JSON,
        b"simlink-key": b"na%C3%AFve",
        b"x-trace": "ü".encode(),
        b"traceparent": b"00-1-2-01",
        b"ce-type": b"order",
        b"x-forwarded-for": b"10.0.0.1",
        b"x-api-key": b"secret",
        b"authorization": b"Bearer secret",
        b"cookie": b"secret",
        b"user-agent": b"curl",
    }
    batch = read_post(headers, b"1").batch
    assert list(batch.keys) == ["naïve".encode()]
    assert dict(batch.headers[0]) == {"x-trace": "ü", "traceparent": "00-1-2-01", "ce-type": "order"}


def test_an_idempotency_key_names_every_message_of_its_post():
    headers = {**JSON, b"idempotency-key": b'"abc"'}
    one, two = read_post(headers, b"[1,2]"), read_post({**JSON, b"idempotency-key": b"abc"}, b"[1,2]")
    assert one.idempotency is not None
    assert (one.idempotency, one.digest) == (two.idempotency, two.digest)
    assert list(one.batch.producers) == [one.idempotency] * 2
    assert list(one.batch.sequences) == [0, 1]
    assert read_post(headers, b"[1,2]", key_scope=b"another").idempotency != one.idempotency
    assert read_post(headers, b"[1,3]").digest != one.digest


def test_the_identity_of_a_sender_of_ours_is_taken_as_it_is():
    producer = bytes(range(16))
    (name,) = format_identities([producer], [7], [1_700_000_000_000_000])
    posted = read_post({**JSON, b"idempotency-key": b'"' + name + b'"'}, b"1")
    message = posted.batch[0]
    assert (posted.identified, posted.idempotency) == (True, None)
    assert (message.producer, message.sequence, message.timestamp) == (producer, 7, 1_700_000_000_000_000)


@pytest.mark.parametrize("name", [b"", b'""', b"x" * 256])
def test_an_idempotency_key_that_names_nothing_is_refused(name):
    assert problem({**JSON, b"idempotency-key": name}, b"1").kind == "idempotency-key"


def test_repeated_headers_are_joined_or_refused():
    assert header_map([(b"x-a", b"1"), (b"x-a", b"2")]) == {b"x-a": b"1, 2"}
    with pytest.raises(Problem, match="content-length came twice"):
        header_map([(b"content-length", b"1"), (b"content-length", b"2")])


@settings(deadline=None)
@given(detail=st.text())
def test_a_problem_is_json_and_can_be_read_back(detail):
    body = Problem(409, "x", detail).body()
    assert json.loads(body) == {"type": "urn:simlink:problem:x", "title": "Conflict", "status": 409, "detail": detail}
    assert read_problem("application/problem+json", body) == (" ".join(detail.split())[:300] or "Conflict")


@settings(deadline=None)
@given(body=st.binary(max_size=40))
def test_whatever_a_server_says_is_one_line(body):
    for kind in ("application/json", "text/plain", "text/html"):
        assert "\n" not in read_problem(kind, body)
