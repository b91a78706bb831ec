"""Speed claims as scripts: each prints our figure, and a peer's in the same run."""
