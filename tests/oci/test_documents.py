"""Manifests, indexes and configs: read from anywhere, written as BuildKit writes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bknb.digest import Digest
from bknb.oci import canonical, times
from bknb.oci.image import Config, History, Image, candidates, config_key, manifest_key, select
from bknb.oci.mutate import AddedLayer, append, fit_history, manifest_for, patch_config, with_members
from bknb.oci.types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    layer_type,
    parse_document,
)
from bknb.platforms import Platform

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))
CONFIG = (
    b'{"architecture":"amd64","os":"linux","config":{"Cmd":["a < b"]},'
    b'"rootfs":{"type":"layers","diff_ids":null}}'
)


def added(digest: Digest, created: str | None = None, description: str = "") -> AddedLayer:
    """A gzip layer."""
    return AddedLayer(Descriptor(OCI_LAYER + "+gzip", digest, 1), digest, created, description)


def test_manifest_text() -> None:
    """A manifest is indented by two, its keys in the order of Go's struct, annotations sorted."""
    manifest = manifest_for(CONFIG, [added(A).descriptor], oci=True, annotations={"b": "<", "a": "1"})
    text = manifest.encode().decode()
    assert text.startswith(
        '{\n  "schemaVersion": 2,\n  "mediaType": "' + OCI_MANIFEST + '",\n  "config": {\n'
    )
    assert text.endswith('  "annotations": {\n    "a": "1",\n    "b": "\\u003c"\n  }\n}')
    assert list(json.loads(text)) == ["schemaVersion", "mediaType", "config", "layers", "annotations"]
    assert Manifest.parse(manifest.encode()).layers == manifest.layers


def test_docker_types() -> None:
    """In Docker's words the same image has no annotations on its layers, and null for no layers."""
    layer = Descriptor(OCI_LAYER + "+gzip", A, 1, {"x": "y"})
    manifest = manifest_for(CONFIG, [layer], oci=False)
    assert (manifest.media_type, manifest.config.media_type) == (DOCKER_MANIFEST, DOCKER_CONFIG)
    assert manifest.layers[0].media_type.endswith("rootfs.diff.tar.gzip")
    assert manifest.layers[0].annotations == {}
    assert layer_type(manifest.layers[0].media_type, oci=True) == OCI_LAYER + "+gzip"
    assert json.loads(manifest_for(CONFIG, [], oci=True).encode())["layers"] is None


def test_unknown_fields_stay() -> None:
    """Bytes that were read are written again; a changed document keeps what nobody here knows."""
    config = canonical.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "odd": {"n": 1},
            "rootfs": {"type": "layers", "diff_ids": [A]},
        }
    )
    raw = canonical.dumps(
        {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "odd": [1.50],
            "config": {"mediaType": "x/y", "digest": Digest.of(config), "size": len(config)},
            "layers": [added(A).descriptor.to_json()],
        }
    )  # fmt: skip
    image = Image.parse(raw, config)
    assert image.manifest.encode() == raw
    bigger = append(image, [added(B, "2020-01-01T00:00:00Z", "RUN x")])
    assert json.loads(bigger.manifest.encode())["odd"] == [1.5]
    assert json.loads(bigger.config.raw)["odd"] == {"n": 1}
    assert [diff_id for _, diff_id in bigger.layers] == [A, B]
    assert bigger.config.history[-1].created_by == "RUN x"
    labelled = with_members(bigger, {"Labels": {"a": "b"}, "Cmd": None})
    assert labelled.config.labels == {"a": "b"}
    assert labelled.digest != bigger.digest


def test_config_is_patched_as_buildkit_does() -> None:
    """Keys sorted, text escaped as Go does, the newest time as the image's."""
    config = canonical.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["a & b"]},
            "rootfs": {"type": "layers", "diff_ids": None},
            "history": [{"created_by": "COPY a /"}, {"created_by": "ENV x=1", "empty_layer": True}],
        }
    )  # fmt: skip
    patched = patch_config(config, [added(A, "2020-01-01T00:00:00.120Z")]).decode()
    assert patched == (
        '{"architecture":"amd64","config":{"Cmd":["a \\u0026 b"]},"created":"2020-01-01T00:00:00.120Z",'
        '"history":[{"created":"2020-01-01T00:00:00.120Z","created_by":"COPY a /"},'
        '{"created":"2020-01-01T00:00:00.120Z","created_by":"ENV x=1","empty_layer":true}],"os":"linux",'
        f'"rootfs":{{"type":"layers","diff_ids":["{A}"]}}}}'
    )


def test_empty_config() -> None:
    """No layers and no history are null, as Go writes nil slices."""
    patched = json.loads(patch_config(CONFIG, []))
    assert (patched["history"], patched["rootfs"]["diff_ids"], patched["created"]) == (None, None, None)
    with pytest.raises(ValueError, match="missing os"):
        patch_config(b'{"architecture":"amd64"}', [])


@pytest.mark.parametrize(
    ("lines", "layers", "expected"),
    [
        ([False, True], 1, [False, True]),
        ([False, False, False], 1, [False, True, True]),
        ([True], 2, [True, False, False]),
        ([], 0, []),
    ],
)
def test_history_fits_layers(lines: list[bool], layers: int, expected: list[bool]) -> None:
    """Lines too many lose their layer, layers without a line get one."""
    history = [History(None, "x", empty_layer=empty) for empty in lines]
    fitted = fit_history(history, [added(A, "2020-01-01T00:00:00Z", "made")] * layers)
    assert [line.empty_layer for line in fitted] == expected
    assert sum(not line.empty_layer for line in fitted) == layers


def test_metadata_lines_take_the_first_new_time() -> None:
    """A line without a time gets that of the first new layer after the base, then of the one before it."""
    old, new, newer = "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"
    history = [History(old, "base"), History(None, "ENV", empty_layer=True), History(None, "RUN 1")]
    history += [History(None, "CMD", empty_layer=True), History(None, "RUN 2")]
    fitted = fit_history(history, [added(A, old), added(B, new), added(C, newer)])
    assert [line.created for line in fitted] == [old, new, new, new, newer]


def test_epoch_spares_the_base() -> None:
    """No time is later than SOURCE_DATE_EPOCH, save those of the base image's own lines."""
    late = "2030-01-01T00:00:00Z"
    base = canonical.dumps(
        {"architecture": "amd64", "os": "linux", "history": [{"created": late, "created_by": "b"}]}
    )
    config = canonical.dumps(
        {
            "architecture": "amd64", "os": "linux", "created": late,
            "history": [{"created": late, "created_by": "b"}, {"created_by": "RUN x"}],
        }
    )  # fmt: skip
    patched = json.loads(patch_config(config, [added(A, late), added(B, late)], epoch=0, base=base))
    assert [line["created"] for line in patched["history"]] == [late, "1970-01-01T00:00:00Z"]
    assert patched["created"] == "1970-01-01T00:00:00Z"


def test_platform_choice() -> None:
    """The exact platform first, then what it runs; attestations never."""

    def entry(digest: Digest, name: str, **annotations: str) -> Descriptor:
        return Descriptor(OCI_MANIFEST, digest, 1, annotations, Platform.parse(name))

    index = Index(OCI_INDEX, (entry(A, "linux/386"), entry(B, "linux/arm/v6"), entry(C, "linux/amd64")))
    found = select(index, Platform.parse("linux/amd64"))
    assert found is not None
    assert found.digest == C
    for asked, expected in (
        ("linux/arm64", B),
        ("linux/arm/v7", B),
        ("linux/arm/v5", None),
        ("linux/386", A),
    ):
        found = select(index, Platform.parse(asked))
        assert (found.digest if found else None) == expected
    attestation = Descriptor(OCI_MANIFEST, A, 1, {"vnd.docker.reference.type": "attestation-manifest"})
    assert select(Index(OCI_INDEX, (attestation,)), Platform.parse("linux/amd64")) is None
    assert [str(p) for p in candidates(Platform.parse("linux/amd64/v3"))] == [
        "linux/amd64/v3", "linux/amd64/v2", "linux/amd64/v1", "linux/386",
    ]  # fmt: skip


def test_keys() -> None:
    """The platform is normalized in an image's key; odd configs have a key too."""
    arm, same = (Platform.parse(text) for text in ("linux/arm64", "linux/arm64/v8"))
    assert manifest_key(A, arm) == manifest_key(A, same) != manifest_key(A, arm, 1)
    assert config_key(b"not json") == Digest.of(b"not json")
    assert config_key(CONFIG) is None
    with pytest.raises(ValueError, match="image has 0 layers, limit is 1"):
        config_key(CONFIG, 1)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(canonical.dumps)
)
def test_hostile_documents(data: bytes) -> None:
    """Whatever comes is read or is one line."""
    for read in (parse_document, Manifest.parse, Index.parse, Config.parse, canonical.members):
        try:
            read(data)
        except ValueError as error:
            assert "\n" not in str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_canonical_text(value: object) -> None:
    """What is written is read again as the same; compacting what was indented changes nothing."""
    assert json.loads(canonical.dumps(value)) == value
    assert canonical.compact(canonical.dumps_indented(value)) == canonical.dumps(value)


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_times(moment: int) -> None:
    """A time is written as Go writes it and read again to the nanosecond."""
    text = times.render(moment)
    assert times.parse(text) == moment
    assert times.normalize(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-02-03T04:05:06.100+00:00", "2020-02-03T04:05:06.1Z"),
        ("2020-02-03T04:05:06+02:00", "2020-02-03T04:05:06+02:00"),
        ("2020-02-03T04:05:06.1234567891Z", "2020-02-03T04:05:06.123456789Z"),
    ],
)
def test_times_of_others(text: str, expected: str) -> None:
    """Times that others wrote come out as Go writes them."""
    assert times.normalize(text) == expected
