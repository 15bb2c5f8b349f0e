"""Files in and out: images, mattes, results, video, downloads; nothing here knows a model."""
