"""What a network costs, what of it is shared, and where it runs, told without training it."""
