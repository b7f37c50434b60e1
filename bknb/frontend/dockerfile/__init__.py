"""The Dockerfile language, up to dockerfile/1.26.

Pure passes, each linear in the file's length:

1. `lexer`: bytes -> `ast.Node`, one for each instruction (continuations, comments, heredocs, flags).
2. `instructions`: nodes -> typed instructions. `parser.parse` does both and never raises: it returns the
   tree and what is wrong with it; `Dockerfile.check()` raises the first error, the one BuildKit gives.
3. `lint.check_syntax`: the build checks that need nothing but the text.
4. `connect`: the tree -> stages that know what they stand on and name; `resolve` looks base images up, side
   by side; `lower` (with `run_mounts`, `copy`, `expose`) turns each instruction into LLB and image config.
   `words` expands shell words and `args.expand` makes the expanded copy of an instruction.

`frontend.DockerfileFrontend` does all of it for a request, once for each platform; `subrequests` answers
questions about a file (outline, targets, lint, convertllb). Files come from `contexts` and `named`, which ask
the `Bridge`. Limits that BuildKit does not have (of sources, mounts, ports, expanded text) are each an error of
one line: a file of a few lines must not be able to ask for more than a machine has.
"""
