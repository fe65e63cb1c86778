"""The family of the paper and its baselines: keypoints carry the motion."""
