"""The models of the paper and its baselines: keypoints carry the motion."""
