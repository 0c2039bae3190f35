"""The tested package behind the book "Residual Networks, Measured".

Floors, from the ground up: :mod:`companion.compute`; :mod:`companion.data` and :mod:`companion.models`;
:mod:`companion.learning`; :mod:`companion.experiments`; the command line and the chapters. Imports only go down.
"""

__version__ = "0.1.0"
