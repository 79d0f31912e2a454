"""The built-in model: a small multimodal LLM that knows a picture-book world, its weights, and the script that trained it."""
