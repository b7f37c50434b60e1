"""Manifests, indexes and image configs: the documents of the OCI image specification, and Docker's schema 2.

A document's digest is that of its bytes, so the bytes are kept and views are taken of them (`image`); what is
changed is changed member by member and written anew (`mutate`), in exactly the JSON that BuildKit writes
(`canonical`). Fields that nobody here knows stay where they are.
"""
