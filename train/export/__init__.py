"""Models as files that need neither Keras nor kpdata: squares of pixels in, keypoints out."""
