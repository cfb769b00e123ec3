"""What goes wrong on purpose, with the ground truth of what was done."""
