"""What is learned and saved: latent queries, and the two files of an adapter."""
