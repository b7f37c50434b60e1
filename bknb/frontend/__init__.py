"""Frontends: what turns a text into an LLB definition.

`dockerfile` is the built-in one. A frontend imports no solver: what it needs of the outside world (a
sub-build, an image's configuration) it asks of the `Bridge` that is passed in.
"""
