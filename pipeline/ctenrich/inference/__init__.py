"""Shared by all models: segmenter protocol, registry, device choice, threads, and restricted readers of weights."""
