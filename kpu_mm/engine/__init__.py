"""What drives training: runners, loops, hooks, optimisers, wrappers.

Configs name the classes as ``kpu_mm.Name``; the registries know their files.
"""
