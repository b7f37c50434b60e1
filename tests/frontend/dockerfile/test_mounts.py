"""`RUN --mount` and `--device`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bknb.errors import DockerfileError
from bknb.frontend.dockerfile.ast import Device
from bknb.frontend.dockerfile.mounts import RunMount, parse_device, parse_mount, parse_size, resolve_mount


def mount(text: str) -> RunMount:
    """A mount with `$X` standing for `x`."""
    return resolve_mount(parse_mount(text), lambda value: value.replace("$X", "x"))


def test_each_type_has_its_defaults() -> None:
    """Bind mounts are read-only, caches and tmpfs are not."""
    assert mount("target=/a") == RunMount(target="/a", readonly=True)
    assert mount("type=cache,dst=/$X,sharing=locked,mode=0755,uid=1") == RunMount(
        type="cache", target="/x", sharing="locked", mode=0o755, uid=1
    )
    assert mount("type=tmpfs,target=/t,size=64m").size == 64 << 20
    assert mount("type=secret,id=s,env=,required") == RunMount(
        type="secret", id="s", env="", required=True, readonly=True
    )
    assert mount('type=bind,"source=a,b",rw').source == "a,b"
    assert mount("TYPE=SSH,ReadOnly=0").readonly is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=cash,target=/x", 'unsupported mount type "cash" (did you mean cache?)'),
        ("Tagret=/x", "unexpected key 'tagret' in 'Tagret=/x' (did you mean target?)"),
        ("sharing=privat", 'unsupported sharing value "privat" (did you mean private?)'),
        ("sharing=shared", "invalid cache sharing set for bind mount"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
        ("type=tmpfs,size=1x", "invalid value for size: 1x"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("mode=8", "invalid value 8 for mode"),
        ("mode=0644", 'mode not allowed for "bind" type mounts'),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("x", "invalid field 'x' must be a key=value pair"),
        ("", "failed to parse csv mounts: EOF"),
        ('a="b', 'failed to parse csv mounts: parse error on line 1, column 3: bare " in non-quoted-field'),
        ('a,"b', 'failed to parse csv mounts: parse error on line 1, column 4: extraneous or missing " in quoted-field'),
        ('"b"c', 'failed to parse csv mounts: parse error on line 1, column 3: extraneous or missing " in quoted-field'),
        ("from=$X", "'from' doesn't support variable expansion, define alias stage instead"),
    ],
)  # fmt: skip
def test_wrong_mounts_say_why(text: str, message: str) -> None:
    """In BuildKit's words."""
    with pytest.raises(DockerfileError) as caught:
        mount(text)
    assert caught.value.message == message


def test_a_dollar_at_the_end_is_no_variable() -> None:
    """`from=a$` is a name, as BuildKit reads it."""
    assert parse_mount("from=a$").from_ == "a$"


def test_sizes() -> None:
    """Powers of 1024, with or without b and ib, a space before; nothing else."""
    assert [parse_size(text) for text in ("1", "1b", "2KB", "1.5 kib", "1g", "1e3")] == [
        1, 1, 2048, 1536, 1 << 30, 1000,
    ]  # fmt: skip
    assert all(
        parse_size(text) is None for text in ("", "b", "1bb", "1_0", " 1", "1 2", "-1", "1e999", "nan")
    )


def test_devices() -> None:
    """A name alone, a name with its key, or a class."""
    assert parse_device("vendor.com/gpu=1,required") == Device("vendor.com/gpu=1", required=True)
    assert parse_device("name=gpu,required=false") == Device("gpu")
    with pytest.raises(DockerfileError, match="device name already set to a"):
        parse_device("a,name=b")


@given(
    st.lists(
        st.sampled_from(["type=", "cache", "secret", ",", '"', "=", "target", "mode", "0", "é", "required"])
    )
)
def test_any_mount_is_read_or_an_error(pieces: list[str]) -> None:
    """No other exception."""
    try:
        mount("".join(pieces))
    except DockerfileError as error:
        assert error.message
