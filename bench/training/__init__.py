"""The Transformer of train.py and train_step.py, on NumPy and pyreg's functions alone, and how it is trained."""
