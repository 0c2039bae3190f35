"""The tested package behind the book "Residual Networks, Measured".

Floors, from the ground up: :mod:`companion.compute`; ``companion.data`` and ``companion.models``;
``companion.training``; ``companion.experiments``; the command line and the chapters. Imports only go
down, and importing the package itself does nothing.
"""

__version__ = "0.1.0"
