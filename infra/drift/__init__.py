"""How far what is asked and answered is from the training split: bins, statistics of inputs, and the verdict."""
