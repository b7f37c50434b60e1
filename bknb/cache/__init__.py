"""The build cache: what was done before (`store`), and what is in a tree of files (`contenthash`)."""
