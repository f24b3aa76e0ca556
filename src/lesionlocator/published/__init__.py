"""The published LesionLocator checkpoints: their plans, their preprocessing, their prompts and their answers."""
