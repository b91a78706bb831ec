"""Optimizers, weight decay and learning-rate schedules."""
