"""Where results come from: images, folders of the client, and what else a source op names."""
