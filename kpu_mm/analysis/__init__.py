"""What models cost, and what their features look like in numbers."""
