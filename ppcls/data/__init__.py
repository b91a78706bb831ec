"""Data: pictures on disk to batches for the network. Nothing here imports Paddle."""
