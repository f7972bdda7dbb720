"""A local web page that compares a student with its original teachers.

Only :mod:`.page`, :mod:`.tabs` and :mod:`.request_guard` need Gradio.
"""
