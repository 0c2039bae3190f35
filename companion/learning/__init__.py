"""Training: the loop, its checkpoints, augmentation in batches, and objectives."""
