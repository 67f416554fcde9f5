"""The words: samples, skeletons, transforms, crops, splits, groups; no file is touched."""
