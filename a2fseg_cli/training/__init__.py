"""Training: recipe, data, augmentation, the loop, checkpoints."""
