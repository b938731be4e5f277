"""Trained networks as files for other programs: graphs, precisions, the check against PyTorch, what precision costs."""
