import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import FormatError
from kpdata.formats._lib import json_stream
from kpdata.formats._lib.json_stream import batches

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
documents = st.fixed_dictionaries(
    {"a": st.lists(values, max_size=6), "b": st.lists(values, max_size=6)},
    optional={"info": values, "extra": values, "": values},
)


def collect(path, arrays=("a", "b")):
    found = {name: [] for name in arrays}
    for name, first, batch in batches(path, arrays):
        assert first == len(found[name])
        found[name] += batch
    return found


def write(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(params=[1, 2, 7, 64])
def small_chunks(request, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", request.param)


@given(document=documents, chunk=st.integers(1, 40), indent=st.sampled_from([None, 0, 3]),
       ascii_only=st.booleans())  # fmt: skip
def test_elements_are_those_of_a_json_parser_at_any_chunk_size(
    tmp_path_factory, document, chunk, indent, ascii_only
):
    path = tmp_path_factory.getbasetemp() / "document.json"
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        found = collect(path)
    assert {name: [json.loads(raw) for raw in raws] for name, raws in found.items()} == {
        name: document[name] for name in ("a", "b")
    }


@given(document=documents, data=st.data())
def test_a_file_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path_factory, document, data):
    text = json.dumps(document).encode()
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(FormatError, match=r"cut\.json: (ends inside|is empty)"):
        collect(path)


@pytest.mark.usefixtures("small_chunks")
def test_brackets_quotes_and_escapes_inside_strings_mean_nothing(tmp_path):
    strings = ['}]"', "\\", '\\"', "[{", "a\\\\", "\n,\t", "é😀"]
    path = write(tmp_path, json.dumps({"a": strings, "b": [{"x": s} for s in strings]}))
    found = collect(path)
    assert [json.loads(raw) for raw in found["a"]] == strings
    assert [json.loads(raw)["x"] for raw in found["b"]] == strings


def test_a_byte_order_mark_is_skipped(tmp_path):
    assert collect(write(tmp_path, b'\xef\xbb\xbf {"a": [1], "b": []}\n')) == {"a": [b"1"], "b": []}


def test_batches_are_bounded_in_number_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "BATCH", 10)
    path = write(tmp_path, json.dumps({"a": list(range(25)), "b": []}))
    assert [len(batch) for _, _, batch in batches(path, ("a", "b"))] == [10, 10, 5]
    monkeypatch.setattr(json_stream, "CHUNK", 8)
    path = write(tmp_path, json.dumps({"a": ["xxxx"] * 5, "b": []}))
    assert [len(batch) for _, _, batch in batches(path, ("a", "b"))] == [2, 2, 1]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: download it again"),
        (" \n", "is empty"),
        ("hello", "starts with b'h.*expected a JSON object"),
        ("[1, 2]", r"starts with b'\[.*expected a JSON object"),
        ('{"a": [{}, {"x": "y', r"ends inside \$\.a\[1\], after 19 bytes: cut short\?"),
        ('{"a": [{}, {}', r"ends inside \$\.a\[1\]"),
        ('{"a": [{}, ', r"ends inside \$\.a\[1\]"),
        ('{"a": [', r"ends inside \$\.a\[0\]"),
        ('{"a": [], "in', r"ends inside \$, "),
        ('{"a": [], "info": {"x": 1', r"ends inside \$\.info"),
        ('{"a": [], "b": []', "ends inside"),
        ('{"a": [1 2]}', r"\$\.a\[0\]: expected a value and , or \], found b'2.* at byte 9"),
        ('{"a": [1,]}', r"\$\.a\[1\]: expected a value"),
        ('{"a": [,1]}', r"\$\.a\[0\]: expected a value"),
        ('{"a": [1}}', r"\$\.a\[0\]: expected a value and , or \], found b'}"),
        ('{"a" [1]}', r'\$: expected a "name":, found b'),
        ("{a: [1]}", r'\$: expected a "name":'),
        ('{"a": [1], "b": [] "c": 1}', r"\$ after 'b': expected , or }"),
        ('{"a": [1], "b": []} x', "b'x' after the closing } at byte 20"),
        ('{"a": [1], "b": []}{}', "b'{' after the closing }"),
        ('{"a": [1], "a": [], "b": []}', r"\$\.a stands twice"),
        ('{"a": {"0": 1}, "b": []}', r"\$\.a is not an array"),
        ('{"a": [1], "info": 3}', "has no array 'b'; it holds 'a', 'info'"),
        ("{}", "has no array 'a'; it holds nothing"),
        (b'{"\xff": [1]}', "not valid JSON"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, text, message):
    with pytest.raises(FormatError, match=message) as caught:
        collect(write(tmp_path, text))
    assert str(tmp_path / "x.json") in str(caught.value)


@pytest.mark.parametrize("close", [True, False])
def test_deep_nesting_is_refused_quickly(tmp_path, close):
    deep = "[" * 100_000 + ("]" * 100_000 if close else "")
    with pytest.raises(FormatError, match=r"\$\.a\[0\] nests deeper than 16 levels"):
        collect(write(tmp_path, '{"a": [' + deep + "]}"))


def test_an_element_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 1 << 10)
    monkeypatch.setattr(json_stream, "MAX_ELEMENT", 1 << 20)
    with pytest.raises(FormatError, match=r"\$\.a\[0\] is larger than 1 MiB"):
        collect(write(tmp_path, '{"a": ["' + "x" * (3 << 20) + '"], "b": []}'))


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(FormatError, match=r"is a folder: give the \.json file"):
        collect(tmp_path)
    with pytest.raises(FormatError, match="cannot read: No such file"):
        collect(tmp_path / "none.json")


class Thing(msgspec.Struct):
    x: list[float]
    name: str = ""


def test_a_wrong_type_is_located_in_the_whole_file(tmp_path):
    path = tmp_path / "x.json"
    raw = [b'{"x": [1, 2]}', b'{"x": [1, "two"]}']
    with pytest.raises(FormatError, match=r"x\.json: \$\.a\[41\]\.x\[1\]: Expected `float`"):
        json_stream.decode_batch(path, "a", 40, raw, Thing)
    with pytest.raises(FormatError, match=r"\$\.a\[40\]: .*missing required field `x`"):
        json_stream.decode_batch(path, "a", 40, [b"{}"], Thing)


def test_nan_and_infinity_reach_the_caller_as_floats(tmp_path):
    raw = [b'{"x": [1]}', b'{"x": [NaN, -Infinity, 1e400]}']
    first, second = json_stream.decode_batch(tmp_path, "a", 0, raw, Thing)
    assert first.x == [1]
    assert str(second.x) == "[nan, -inf, inf]"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"x": [1]]',
        b'{"x": [1,]}',
        b'{"x": [.]}',
        b'{"x": [1], "name": "\xff"}',
        b'{"x": [1], "name": "\\ud800"}',
        b'{"x": [1], "name": "\\q"}',
        b"{" + b'"y": {' * 5 + b"}",
    ],
)
def test_text_that_is_not_json_is_located(tmp_path, raw):
    with pytest.raises(FormatError, match=r"\$\.a\[7\]: not valid JSON"):
        json_stream.decode_batch(tmp_path / "x.json", "a", 7, [raw], Thing)
