"""The claims, a module a topic; each has its ``CLAIMS`` in the order of the document.

``sent`` is what experiments of ``communication`` share.
"""
