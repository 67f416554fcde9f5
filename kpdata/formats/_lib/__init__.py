"""What several formats share: streams, listings, MATLAB, YAML, and folders of images."""
