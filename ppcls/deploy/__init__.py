"""Running a model: the steps from pictures to answers, and runtimes for exported folders.

Importing this package does not import Paddle.
"""
