"""Metrics, one file each. All of them are sums that can be added over batches and processes."""
