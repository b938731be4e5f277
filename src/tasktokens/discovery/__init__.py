"""Pseudo-labels: what a teacher predicts where labels are missing, with confidences and thresholds."""
