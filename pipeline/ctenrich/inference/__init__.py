"""What all models share: the segmenter protocol, the registry, and restricted readers of weights."""
