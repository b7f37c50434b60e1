"""BuildKit's protobuf messages, in a descriptor pool of our own.

One ``NAME.proto`` for each file of BuildKit's wire, in our own words; beside it ``NAME_pb2.py``, generated
(the descriptor as bytes) and ``NAME_pb2.pyi`` (its types). ``python -m bknb.pb.generate`` writes both anew;
it needs grpcio-tools, which only developers have.

The pool is our own because a process has one default pool, and a second package that registers another copy
of the same file there makes the import of one of them fail. No generated code of protoc is kept either: it
refuses a runtime older than the compiler, while a serialised descriptor loads into any protobuf.
"""
