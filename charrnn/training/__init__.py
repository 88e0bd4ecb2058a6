"""How it learns: optimizers, schedule, loop, evaluation, workers and checkpoints."""
