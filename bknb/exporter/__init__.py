"""Results on their way out: images kept and pushed, archives, trees.

    options    what an output's attributes mean, in BuildKit's words
    assemble   results -> manifests, configs and indexes in the content store
    archive    an OCI layout as a tar or a folder, with docker's manifest.json where wanted
    image oci docker     images: kept, pushed, written
    trees      the files of a result, as a stream of tar
    tar local            files: as one tar, as a folder

Every exporter has two steps (`protocols.Exporter`): it writes, and what it returns publishes. A file appears
under its name by rename, a tag is given and a push is made only in the second step.
"""

from bknb.exporter.choose import ExportParts, open_exporter

__all__ = ["ExportParts", "open_exporter"]
