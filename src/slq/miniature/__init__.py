"""The built-in model: a small multimodal LLM pre-trained on the picture-book world, its weights, and the world as sample data."""
