"""Metrics: sums that are added over batches and processes, and what needs all scores."""
