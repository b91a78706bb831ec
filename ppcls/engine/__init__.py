"""Training, evaluation, prediction and export, each from one checked configuration."""
