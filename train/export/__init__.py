"""Models as files that need neither Keras nor kpdata: crops in, keypoints out."""
