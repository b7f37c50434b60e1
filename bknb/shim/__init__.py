"""The shim: the one small process that mounts, writes below a root and starts containers.

One runs for each kernel, started by `bknb.executor.shim`. It imports the standard library and `bknb.beneath`
only, so that it is there in some 30 ms and stays small enough to start processes in a fraction of a
millisecond.

::

    kernel ── posix_spawn ──> watcher ── fork ──> shim: PID 1 of its own PID namespace, in its own mount
    namespace
                              (main.py)           (server.py): a thread for each request

The watcher stays outside. It waits for the end of the kernel (a pidfd) and of the shim. When the kernel's
end of the socket closes, the shim ends, and the kernel of the machine ends every process in its PID
namespace and drops every mount of its mount namespace; the watcher then removes the cgroups. If the watcher
is killed, the shim removes them itself. So nothing needs a next start to be cleaned up.

**Ops.** A request is ``{"id", "op": "noun.verb", "args", "fds"}``, a frame of `wire`. The noun is a module
of this package (`server.NOUNS`), and ``OPS`` in it maps the verb to a function ``(context, fds, **args) ->
result``, run in a thread of its own. It raises `Failure` with the name of the error class of `bknb.errors`
that the kernel shall see, or OSError. Ops that take long call ``context.check()`` now and then, which raises
when they are cancelled.

- ``mounts``: trees out of `Mount` data; no ops of its own, everybody's `open_tree`
- ``containers``: run a process in a container
- ``files``: file actions of LLB (`copying`: one COPY; `rules`: how what it copies comes out)
- ``trees``, ``views``: layer directories; looking into trees
- ``contexts``: copying a client's folder
"""
