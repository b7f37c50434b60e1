"""Every contract of bknb, in the order in which a build meets them. Read this file first.

Values are frozen dataclasses; contracts are Protocols, implemented structurally. Siblings of one floor never
import each other: they meet here, and are joined by the floors above.

The way of a build: a `Frontend` turns text into a graph and asks a `Bridge` for what it needs to know; the
solver asks a `Worker` for the `Operation` of each vertex and a `CacheStore` for what was done before;
operations make `Ref`s out of `Snapshotter` and `ContentStore` with the help of the `Shim` and its
`Executor`; a `Session` is the way back to whoever asked for the build; an `Exporter` turns the last Ref into
an image.
"""

from bknb.oci.types import Descriptor
from bknb.protocols.builder import (
    Builder,
    Exporter,
    ExportInput,
    ExportRequest,
    Limiter,
    Origin,
    SolveRequest,
    SolveResult,
)
from bknb.protocols.executor import (
    Executor,
    ExitStatus,
    Isolation,
    Mount,
    Mounts,
    Output,
    Process,
    ProcessMount,
    Shim,
)
from bknb.protocols.frontend import (
    Bridge,
    Forward,
    Frontend,
    FrontendRequest,
    FrontendResult,
    ImageConfigAnswer,
    PlatformResult,
    SkippedStage,
    SourceMetaAnswer,
    VertexInfo,
)
from bknb.protocols.solver import (
    CacheMap,
    CacheRecord,
    CacheSource,
    CacheStore,
    Credentials,
    Dep,
    Job,
    LocalDirectory,
    Operation,
    Session,
    Worker,
)
from bknb.protocols.storage import (
    BlobInfo,
    BlobWriter,
    Compression,
    ContentStore,
    Fetch,
    LayerBlob,
    LayerDirectory,
    Layers,
    MutableRef,
    Progress,
    Ref,
    RefStore,
    SnapshotInfo,
    Snapshotter,
    Usage,
)

__all__ = [
    "BlobInfo",
    "BlobWriter",
    "Bridge",
    "Builder",
    "CacheMap",
    "CacheRecord",
    "CacheSource",
    "CacheStore",
    "Compression",
    "ContentStore",
    "Credentials",
    "Dep",
    "Descriptor",
    "Executor",
    "ExitStatus",
    "ExportInput",
    "ExportRequest",
    "Exporter",
    "Fetch",
    "Forward",
    "Frontend",
    "FrontendRequest",
    "FrontendResult",
    "ImageConfigAnswer",
    "Isolation",
    "Job",
    "LayerBlob",
    "LayerDirectory",
    "Layers",
    "Limiter",
    "LocalDirectory",
    "Mount",
    "Mounts",
    "MutableRef",
    "Operation",
    "Origin",
    "Output",
    "PlatformResult",
    "Process",
    "ProcessMount",
    "Progress",
    "Ref",
    "RefStore",
    "Session",
    "Shim",
    "SkippedStage",
    "SnapshotInfo",
    "Snapshotter",
    "SolveRequest",
    "SolveResult",
    "SourceMetaAnswer",
    "Usage",
    "VertexInfo",
    "Worker",
]
