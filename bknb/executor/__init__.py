"""Containers: the kernel's end of the shim, and what a container is made of.

`shim.ShimProcess` starts and talks to the process of `bknb.shim`; `run.ShimExecutor` runs a `Process`
through it with an OCI runtime (`runc`), bubblewrap (`bubblewrap`) or, without isolation, proot (`proot`);
`seccomp` holds the default system call filter; `isolation` finds out what this machine has.
"""
