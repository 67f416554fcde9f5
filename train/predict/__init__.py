"""Keypoints in anybody's photos and videos: reading them, answering, and writing the answers."""
