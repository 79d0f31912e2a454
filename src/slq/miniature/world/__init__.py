"""The picture-book world: objects with drawings and fact sheets, scenes made of them, and texts about both."""
