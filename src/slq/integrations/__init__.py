"""The retriever behind other libraries' interfaces."""
