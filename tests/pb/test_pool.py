"""Messages in a pool of our own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pool

from bknb.pb import ops_pb2
from bknb.pb.generate import main


def test_our_messages_stay_out_of_the_default_pool() -> None:
    """Another package may register its own copy of BuildKit's files."""
    assert ops_pb2.DESCRIPTOR.pool is not descriptor_pool.Default()
    program = (
        "from google.protobuf import descriptor_pool, descriptor_pb2 as d\n"
        "import bknb.pb.ops_pb2\n"
        "f = d.FileDescriptorProto(name='ops.proto', package='pb')\n"
        "f.message_type.add(name='Op')\n"
        "descriptor_pool.Default().AddSerializedFile(f.SerializeToString())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, start_new_session=True)


def test_enums_and_their_values_are_names_of_the_module() -> None:
    """As protoc's own modules have them."""
    assert ops_pb2.NetMode.Name(ops_pb2.HOST) == "HOST"


def test_generated_files_are_those_of_the_proto_files(tmp_path: Path) -> None:
    """Nobody edited them, and nobody forgot to generate them anew."""
    import importlib.util

    import pytest

    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("needs grpcio-tools, which only developers have")
    folder = Path(ops_pb2.__file__).parent
    for proto in folder.glob("*.proto"):
        (tmp_path / proto.name).write_text(proto.read_text())
    main(tmp_path)
    for made in tmp_path.glob("*_pb2.py"):
        assert made.read_text() == (folder / made.name).read_text()
