"""What is built with kpu_mm, which imports none of it."""
