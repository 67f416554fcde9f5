"""Pictures for people: keypoints drawn, and sheets of them."""
