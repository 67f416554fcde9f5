"""Output for people: pictures with keypoints drawn, contact sheets, and the console."""
