"""The Dockerfile language, up to dockerfile/1.26.

Pure passes, each linear in the file's length:

1. `lexer`: bytes -> `ast.Node`, one for each instruction (continuations, comments, heredocs, flags).
2. `instructions`: nodes -> typed instructions. `parser.parse` does both and never raises: it returns the
   tree and what is wrong with it; `Dockerfile.check()` raises the first error, the one BuildKit gives.
3. `lint.check_syntax`: the build checks that need nothing but the text.
4. Stages, variables and base images are resolved, then lowered to LLB. `words` expands shell words and
   `args.expand` makes the expanded copy of an instruction.
"""
