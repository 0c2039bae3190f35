"""What is minimised: for each kind of data its encoding, its augmentation and its loss."""
