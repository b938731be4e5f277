"""Where labels come from: one module or folder for each data set that can be read."""
