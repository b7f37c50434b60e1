"""The builder in the kernel: every mechanism, joined."""
