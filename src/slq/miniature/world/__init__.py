"""The picture-book world: things with drawings and knowledge cards, scenes made of them, and words about both."""
