"""Training: the loop, its callbacks, checkpoints and what keeps a run safe."""
