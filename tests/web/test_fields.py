"""Bodies and queries: what is taken, and that everything else is refused with a sentence that helps."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadJson, InvalidField
from gateway.web.body import parse_object
from gateway.web.fields import flag, parse_query, take, text, texts, whole_number

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
READERS = {"email": text, "isAdmin": flag, "roles": texts}


class TestJson:
    @given(st.dictionaries(st.text(), JSON_VALUES, max_size=6))
    def test_every_plain_object_is_read_as_it_was_written(self, value: dict[str, Any]) -> None:
        assert parse_object(json.dumps(value).encode()) == value

    @given(st.binary(max_size=200))
    def test_no_bytes_whatever_end_in_anything_but_an_object_or_bad_json(self, body: bytes) -> None:
        with contextlib.suppress(BadJson):
            assert isinstance(parse_object(body), dict)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"null",
            b"1",
            b'"text"',
            b"[]",
            b"[{}]",
            b"{",
            b"{}{}",
            b"{} x",
            b"{'a': 1}",
            b'{"a": 1,}',
            b'{"a": 01}',
            b'{"a": +1}',
            b'{"a": .5}',
            b'{"a": 0x10}',
            b'{"a": tru}',
            b'{"a": "tab\there"}',
            b'{"a": "\x00"}',
            b'// comment\n{"a": 1}',
            b'\xef\xbb\xbf{"a": 1}',  # a byte-order mark
            '{"a": 1}'.encode("utf-16"),
            '{"a": "é"}'.encode("latin-1"),
            b'{"a": "\xed\xa0\x80"}',  # a surrogate written as UTF-8 (CESU-8)
            b'{"a": "\xc0\xaf"}',  # overlong
            b'{"a": "\\x41"}',
        ],
    )
    def test_what_is_no_json_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(BadJson):
            parse_object(body)

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
    def test_numbers_that_are_none_are_refused(self, constant: str) -> None:
        with pytest.raises(BadJson, match="NaN and Infinity"):
            parse_object(b'{"a": [%b]}' % constant.encode())

    @pytest.mark.parametrize(
        "body",
        [
            b'{"isAdmin": false, "isAdmin": true}',
            b'{"a": {"b": 1, "b": 1}}',
            b'{"a": 1, "\\u0061": 2}',  # the same key, spelled with an escape
        ],
    )
    def test_the_same_key_twice_is_refused_at_any_depth(self, body: bytes) -> None:
        with pytest.raises(BadJson, match="twice"):
            parse_object(body)

    @pytest.mark.parametrize("bomb", [b"[" * 8000 + b"]" * 8000, b'{"a":' * 3000 + b"1" + b"}" * 3000])
    def test_deep_nesting_is_refused_without_a_crash(self, bomb: bytes) -> None:
        with pytest.raises(BadJson):
            parse_object(b'{"a":%b}' % bomb)

    def test_a_number_of_many_digits_is_refused_and_not_computed(self) -> None:
        with pytest.raises(BadJson):
            parse_object(b'{"a": %b}' % (b"9" * 15000))

    def test_a_huge_exponent_is_no_string(self) -> None:
        with pytest.raises(InvalidField, match="email: write a string"):
            take(parse_object(b'{"email": 1e999999}'), required={"email": text})


class TestFields:
    def test_what_was_asked_for_is_taken_and_what_was_not_sent_is_not_there(self) -> None:
        sent = {"email": "a@b", "roles": ["x", "y"]}
        assert take(sent, required={"email": text}, optional={"isAdmin": flag, "roles": texts}) == {
            "email": "a@b",
            "roles": ("x", "y"),
        }

    @pytest.mark.parametrize(
        ("field", "value", "sentence"),
        [
            *[
                ("email", value, "email: write a string.")
                for value in (None, True, 1, 1.5, [], {}, ["a@b"], {"$ne": ""})
            ],
            *[
                ("isAdmin", value, "isAdmin: write true or false.")
                for value in (None, 0, 1, 1.0, "", "true", "false", [], {}, [True])
            ],
            *[
                ("roles", value, "roles: write a list of strings.")
                for value in (None, True, 1, "", "admin", {}, {"0": "admin"})
            ],
            ("roles", ["a", 1], "roles[1]: write a string."),
            ("roles", [["a"]], "roles[0]: write a string."),
            ("roles", [None], "roles[0]: write a string."),
            ("email", "a\ud800@b", "email: half a character (a lone surrogate) is in it."),
            ("roles", ["\udfff"], "roles[0]: half a character (a lone surrogate) is in it."),
        ],
    )
    def test_a_value_of_another_type_is_refused_and_never_converted(
        self, field: str, value: Any, sentence: str
    ) -> None:
        with pytest.raises(InvalidField) as refused:
            take({field: value}, optional=READERS)
        assert refused.value.detail == sentence

    def test_a_missing_field_is_named(self) -> None:
        with pytest.raises(InvalidField, match=r"^password is missing\.$"):
            take({"email": "a@b"}, required={"email": text, "password": text})

    def test_an_unknown_field_is_named_with_what_may_be_sent(self) -> None:
        with pytest.raises(InvalidField, match=r"^isadmin is unknown here; send email, isAdmin, roles\.$"):
            take({"isadmin": True}, optional=READERS)

    @pytest.mark.parametrize(
        "name", ["", "hunter2 is my password", "a" * 41, "x\ny", "é", "<script>", "\ud800"]
    )
    def test_a_field_name_that_could_hold_anything_is_not_repeated(self, name: str) -> None:
        with pytest.raises(InvalidField, match=r"^A field is unknown here"):
            take({name: 1}, optional=READERS)

    @given(st.dictionaries(st.sampled_from(["email", "isAdmin", "roles", "id"]), JSON_VALUES, max_size=4))
    def test_whatever_is_taken_has_exactly_the_types_that_were_asked_for(self, sent: dict[str, Any]) -> None:
        with contextlib.suppress(InvalidField):
            taken = take(sent, optional=READERS)
            assert taken.keys() == sent.keys() <= READERS.keys()
            assert all(type(taken[name]) in (str, bool, tuple) for name in taken)


class TestQuery:
    def test_parameters_are_decoded_once(self) -> None:
        assert parse_query(b"query=a%2Bb+c&cursor=%C3%A9%2525&&limit=") == {
            "query": "a+b c",
            "cursor": "é%25",
            "limit": "",
        }

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            (b"limit=1&limit=2", "limit is in the query twice"),
            (b"limit=1&lim%69t=2", "limit is in the query twice"),
            (b"query=%", "not followed by two hex digits"),
            (b"query=%zz", "not followed by two hex digits"),
            (b"query=%f", "not followed by two hex digits"),
            (b"query=%ff", "not UTF-8"),
            (b"query=%ed%a0%80", "not UTF-8"),
            (b"query=\xff", "not UTF-8"),
        ],
    )
    def test_what_could_be_read_in_two_ways_is_refused(self, query: bytes, sentence: str) -> None:
        with pytest.raises(InvalidField, match=sentence):
            parse_query(query)

    @pytest.mark.parametrize(
        "value", ["", "0", "201", "-1", "+5", "5.0", "1e2", " 5", "5 ", "٥", "0x10", "9" * 30]
    )
    def test_a_limit_is_a_plain_number_within_bounds(self, value: str) -> None:
        with pytest.raises(InvalidField, match=r"limit: write a whole number from 1 to 200\."):
            take({"limit": value}, optional={"limit": whole_number(1, 200)})

    @pytest.mark.parametrize("value", [1, 17, 200])
    def test_a_number_within_bounds_is_taken(self, value: int) -> None:
        assert take({"limit": str(value)}, optional={"limit": whole_number(1, 200)}) == {"limit": value}
