"""Training: defaults, schedule, optimizers, the loop, validation, and parallel processes."""
