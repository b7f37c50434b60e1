"""Registries: a client of the OCI distribution protocol, and a small registry of our own.

    hosts      which addresses serve a name, in which order, and how they are reached
    auth       what a registry wants to be told before it answers
    http       requests: connections, redirects, retries
    client     images: resolve, fetch, push
    transfer   blobs: download with resume, upload
    server     a registry over a content store, in this process; repositories are its memory
    seed       an image made of Debian's busybox-static, for builds without a network

Importing this package loads no HTTP library; the client and the server do when they are started.
"""
