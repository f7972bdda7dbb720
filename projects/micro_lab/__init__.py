"""The micro lab: the paper's experiments at a size for two CPU cores.

Digit scenes, three small trained models, every recipe and task at that size.
Its commands are ``python -m projects.micro_lab.demo`` and the like.
"""
