"""Side by side with BuildKit itself, where ``buildctl`` and ``buildkitd`` are on PATH."""
